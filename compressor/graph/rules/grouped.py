"""Products in groups, as mixtures of experts take them: ``y[m, n] = sum_k a[m, k] * b[group of m, k, n]``.

Offsets cut one axis into groups: the rows of a, the columns of b, or what is summed over. That axis and the groups
stay. The kernel wants rows that begin at multiples of 16 bytes, so of the other axes whole runs go.
"""

from __future__ import annotations

from typing import Any

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule

_HALF = 2  # bytes of a number in half precision, to which a model may be cast
_BYTES = 16


@rule("_grouped_mm", "grouped_mm_fallback")
def grouped(flow: Flow, node: Node) -> None:
    given: dict[str, Any] = dict(zip(("a", "b", "offs", "bias"), node.args, strict=False)) | node.kwargs
    a, b, y, bias = node.inputs[0], node.inputs[1], node.outputs[0], given.get("bias")
    k, n = a.shape[-1], b.shape[-1]
    groups = [(part.axes[0], part.shape[0]) for part in (a, b) if len(part.shape) == 3]
    contracted = flow.join(a.axes[-1], b.axes[-2], k, k)
    if given.get("offs") is not None:
        ragged = {(2, 3): a.axes[-2], (3, 2): b.axes[-1], (2, 2): contracted}.get((len(a.shape), len(b.shape)))
        for axis in (ragged, *(axis for axis, _ in groups)):
            flow.fix(axis, "cut into the groups of a product")
    if node.op == "_grouped_mm":
        for axis, size in ((contracted, k), (b.axes[-1], n)):
            _in_runs(flow, axis, size, a.itemsize)
    operands = [(b, len(b.shape) - 2), (a, len(a.shape) - 1)]
    flow.reads(contracted, *(operands[::-1] if a.param is not None and b.param is None else operands))
    y.axes[-2:] = [a.axes[-2], b.axes[-1]]
    sizes = [(a.axes[-2], a.shape[-2]), (contracted, k), (b.axes[-1], n)]
    if len(groups) == 2:
        y.axes[0] = flow.join(groups[0][0], groups[1][0], y.shape[0], y.shape[0])
        sizes.append((y.axes[0], y.shape[0]))
    if isinstance(bias, Value):
        flow.fix(bias.axes[0], "cut into the groups of a product")
        y.axes[-1] = flow.join(y.axes[-1], bias.axes[-1], n, bias.shape[-1])
    flow.costs("linear" if a.param is not None or b.param is not None else "matmul", 1.0, *sizes)


def _in_runs(flow: Flow, axis: Axis, size: int, itemsize: int) -> None:
    """Let whole runs of 16 bytes go, in half precision too where they can."""
    if flow.is_fixed(axis):
        return
    run = next((run for run in (_BYTES // _HALF, _BYTES // itemsize) if size % run == 0), None)
    if run is None:
        flow.fix(axis, f"rows of {size} numbers do not fit the kernel")
    else:
        flow.split(axis, size // run, run, constant=(False, True))
