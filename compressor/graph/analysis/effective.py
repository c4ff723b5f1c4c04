"""Weights that the forward computes from stored tensors, and the calls that read them.

Under pruning masks, weight and spectral normalisation or any parametrization, what a layer multiplies with is none of
the tensors that the model stores. The trace notes which argument of which call such a weight is, along which units,
and what it is computed from; its values are then there to be had from any run of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compressor.arrays import IntArray
from compressor.graph.analysis.units import Analysis
from compressor.graph.axis import Axis
from compressor.graph.graph import ComputedWeight
from compressor.graph.recording.values import Node, Value

# Operators that only put numbers elsewhere: what comes out is the stored weight still.
_MOVES = frozenset({
    "view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "contiguous", "clone", "alias",
    "detach", "_to_copy", "t", "transpose", "permute", "expand", "split", "split_with_sizes", "chunk", "slice",
    "select", "unbind", "narrow", "cat", "stack", "index", "index_select", "flip", "roll", "repeat", "constant_pad_nd",
    "pad", "lift_fresh", "tril", "triu", "unfold", "as_strided", "gather",
})  # fmt: skip
_VIEWS = _MOVES - {"cat", "stack"}


@dataclass(frozen=True)
class _Origin:
    """The parameters a value comes from, and whether its numbers are theirs no more."""

    parameters: frozenset[str]
    altered: bool


def find_computed(
    analysis: Analysis,
    nodes: Sequence[Node],
    inputs: set[int],
    described: Mapping[str, tuple[Value, tuple[str, ...], bool]],
) -> list[ComputedWeight]:
    """The computed weights of one recording; call it when units have their numbers.

    Args:
        inputs: indices of the values that the model was called with; what does not depend on them is a weight.
    """
    origins = _origins(nodes, inputs, described)
    found: dict[tuple[str, str, int, int | str], ComputedWeight] = {}
    for node in nodes:
        call = node.call
        if call is None or all(value.index in origins for value in node.outputs):
            continue
        for value in node.inputs:
            origin = origins.get(value.index)
            if origin is None or not origin.altered or not origin.parameters:
                continue
            at = _argument(call.values, value)
            if at is not None:
                position, read = at
                key = call.place, call.name, call.ordinal, position
                axes = tuple(_axis(analysis, labels) for labels in read.axes)
                found.setdefault(key, ComputedWeight(*key, read.shape, axes, tuple(sorted(origin.parameters))))
    return list(found.values())


def _origins(
    nodes: Sequence[Node], inputs: set[int], described: Mapping[str, tuple[Value, tuple[str, ...], bool]]
) -> dict[int, _Origin]:
    """Where values come from that do not depend on the inputs."""
    origins = {
        value.index: _Origin(frozenset() if is_buffer else frozenset({name}), False)
        for name, (value, _, is_buffer) in described.items()
    }
    for node in nodes:
        every = []
        for value in node.inputs:
            if value.index not in origins and value.producer is None and value.index not in inputs:
                origins[value.index] = _Origin(frozenset(), False)  # a constant of the program
            every.append(origins.get(value.index))
        if any(origin is None for origin in every):
            continue
        known = [origin for origin in every if origin is not None]
        origin = _Origin(
            frozenset().union(*(each.parameters for each in known)),
            any(each.altered for each in known) or node.op.rstrip("_") not in _MOVES,
        )
        for value in node.outputs:
            origins[value.index] = origin
    return origins


def _argument(given: Sequence[tuple[int | str, Value]], value: Value | None) -> tuple[int | str, Value] | None:
    """The argument of a call that ``value`` is, or is a view of."""
    while value is not None:
        for position, each in given:
            if each is value:
                return position, each
        maker = value.producer
        viewed = maker is not None and maker.op in _VIEWS and len(maker.inputs) == 1
        value = maker.inputs[0] if viewed and maker is not None else None
    return None


def _axis(analysis: Analysis, labels: IntArray | None) -> Axis | None:
    factors = analysis.units_of(labels)
    return None if factors is None else Axis(-1, factors)
