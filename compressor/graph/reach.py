"""What the example did not reach is neither thrown away nor left behind.

A table cut to the input's length, ``table[: x.shape[1]]``, is read as far as the example is long. Its other entries
carry labels that nothing computed from the inputs carries: nothing says that they could go, as a longer input will
want them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from compressor.graph.flow import Flow
from compressor.graph.record import Node, Value

Described = Mapping[str, tuple[Value, tuple[str, ...], bool]]
"""Parameters and buffers by their first name, with all names, and whether they are buffers."""


def fix_unseen(flow: Flow, nodes: Iterable[Node], parameters: Described) -> None:
    """Fix the entries of parameters and buffers that no result depends on. Call when all rules have run."""
    labels = flow.labels
    seen = {id(axis): axis for value in _from_inputs(nodes) for axis in value.axes if axis is not None}
    used = [reader.labels for reader in flow.readers] + [each.labels for each in flow.adjustments]
    seen.update((id(axis), axis) for axis in used)
    met = np.zeros(len(labels) + 1, dtype=np.bool_)  # the last entry is for -1, which fills tables of factors
    if seen:
        met[labels.factors(np.concatenate(list(seen.values())), flow.reason("labels nested too deep"))] = True
    for name, (value, _, _) in parameters.items():
        for axis in value.axes:
            if axis is None:
                continue
            roots = labels.find(axis)
            unseen = labels.are_free(roots) & ~met[roots]
            if np.count_nonzero(unseen):
                labels.fix(axis[unseen], flow.reason("the example did not reach it", place=name))


def _from_inputs(nodes: Iterable[Node]) -> list[Value]:
    """Values that depend on more than parameters: on inputs, or on tensors that are no parameters."""
    found: dict[int, Value] = {}
    written: set[int] = set()
    for node in nodes:
        if any(
            v.index in found or v.storage in written or (v.producer is None and v.param is None) for v in node.inputs
        ):
            found.update((value.index, value) for value in node.outputs)
            if node.mutates:
                written.update(value.storage for value in node.outputs)
    return list(found.values())
