"""What lowers the resolution along a trunk, and whether it can be done elsewhere instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.architecture.edits.keep_resolution import AVG_POOLS, CONVOLUTIONS, MAX_POOLS, stride_of, why_not
from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.analysis.trunk import CONVOLUTIONS as OPERATORS
from compressor.graph.recording.values import Node


@dataclass(frozen=True)
class Fall:
    """A change of the spatial size between two nodes of the trunk; ``reason`` says why it has to stay, if it has."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    modules: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str, int], ...] = ()
    factor: tuple[int, ...] = ()
    reason: str = ""


def fall(
    nodes: list[Node],
    dataflow: Dataflow,
    modules: Mapping[str, nn.Module],
    span: tuple[int, int],
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> Fall | None:
    """What changes the size from ``before`` to ``after`` between two nodes; ``None`` if it stays."""
    if before == after:
        return None
    sizes = f"from {_by(before)} to {_by(after)}"
    if any(a > b for a, b in zip(after, before, strict=True)):
        return Fall(before, after, reason=f"the resolution grows {sizes}")
    names: dict[str, list[int]] = {}
    attributes: dict[tuple[str, str], tuple[int, list[int]]] = {}
    for node in nodes[span[0] : span[1]]:
        if not dataflow.live[node.index]:
            continue
        for axis, step in _steps(node, len(before)):
            held = _attribute(modules.get(node.place), step)
            if held is None:
                return Fall(before, after, reason=f"{node.place or 'the model'} takes every {step}. position, by a "
                            "step that is no attribute of it")  # fmt: skip
            attributes.setdefault((node.place, held), (step, [1] * len(before)))[1][axis] = step
        if not _reduces(node):
            continue
        module = modules.get(node.place)
        if not isinstance(module, (*CONVOLUTIONS, *MAX_POOLS, *AVG_POOLS)):
            return Fall(before, after, reason=f"{node.place or 'the model'} calls {node.op} itself, not through a "
                        "module")  # fmt: skip
        reason = why_not(module)
        if reason:
            return Fall(before, after, reason=f"{node.place} {reason}")
        names[node.place] = stride_of(module)
    strides = [*names.values(), *(steps for _, steps in attributes.values())]
    if not strides:
        return Fall(before, after, reason=f"the size falls {sizes} without a stride")
    factor = tuple(max(axis) for axis in zip(*strides, strict=True)) if _alike(strides, len(before)) else ()
    if not factor:
        return Fall(before, after, reason=f"the size falls {sizes} by several strides")
    if not all(a in (b // f, -(-b // f)) for b, a, f in zip(before, after, factor, strict=True)):
        return Fall(before, after, reason=f"the size falls {sizes}, which is not by a stride of {_by(factor)}")
    named = tuple((place, name, step) for (place, name), (step, _) in attributes.items())
    return Fall(before, after, tuple(names), named, factor)


def _alike(strides: list[list[int]], n: int) -> bool:
    return all(len(stride) == n for stride in strides)


def _reduces(node: Node) -> bool:
    """Whether a node is a convolution or a window pool with a stride."""
    if node.op in OPERATORS:
        return not node.args[6] and max(node.args[3]) > 1
    pools = ("max_pool", "avg_pool")
    return node.op.startswith(pools) and node.inputs[0].shape[2:] != node.outputs[0].shape[2:]


def _steps(node: Node, n: int) -> Iterator[tuple[int, int]]:
    """Of a slice that leaves positions out: the spatial axis and the step."""
    if node.op == "slice" and len(node.args) > 4 and int(node.args[4]) > 1:
        axis = int(node.args[1]) - (len(node.inputs[0].shape) - n)
        if axis >= 0:
            yield axis, int(node.args[4])


def _attribute(module: nn.Module | None, step: int) -> str | None:
    """The attribute of a module that holds a step; ``None`` if there is none, or more than one."""
    held: list[str] = [name for name, value in _numbers(module) if value == step]
    return held[0] if len(held) == 1 else None


def _numbers(module: nn.Module | None) -> list[tuple[str, Any]]:
    return [] if module is None else [(k, v) for k, v in vars(module).items() if type(v) is int]


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
