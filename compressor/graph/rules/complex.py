"""Complex numbers: made of two real tensors, and seen as real ones with a last axis of two."""

from __future__ import annotations

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule
from compressor.graph.rules.elementwise import elementwise
from compressor.graph.rules.movement import moved


@rule("complex", "polar")
def joined(flow: Flow, node: Node) -> None:
    elementwise(flow, node)


@rule("_conj", "resolve_conj", "conj_physical", "_conj_physical", "_neg_view", "resolve_neg")
def same_places(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    moved(x, node.outputs[0], list(range(len(x.shape))))


@rule("view_as_real")
def as_real(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    moved(x, node.outputs[0], [*range(len(x.shape)), None])


@rule("view_as_complex")
def as_complex(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    flow.fix(x.axes[-1], "real and imaginary part")
    moved(x, node.outputs[0], list(range(len(x.shape) - 1)))


@rule("stft", "istft")
def short_time(flow: Flow, node: Node) -> None:
    """``(B, samples)`` to ``(B, frequencies, frames)``, with the parts apart or not, or back. There need be no B."""
    x, y = node.inputs[0], node.outputs[0]
    last = 2 if node.op == "istft" else 1
    batched = len(x.shape) > last
    for axis in x.axes[batched:]:
        flow.fix(axis, f"{node.op} along it")
    for window in node.inputs[1:]:
        flow.fix_value(window, "a window")
    y.axes = [*x.axes[:batched], *[None] * (len(y.shape) - batched)]
