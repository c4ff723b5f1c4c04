"""What the user wants kept whatever a search finds: least widths of layers, and channels chosen by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from compressor.arrays import BoolArray, IntArray
from compressor.errors import UsageError
from compressor.graph.axis import Axis
from compressor.graph.graph import Graph, Parameter
from compressor.graph.patterns import matches, require_matches
from compressor.options import shown
from compressor.plugins.registry import closest
from compressor.search.constraints.wishes import Least


@dataclass(frozen=True)
class Wanted:
    """Limits of any choice.

    Attributes:
        least: by group's index, how many units stay at least.
        chosen: by group's index, the units that stay, no more and no less.
        blocks: indices of the blocks that stay.
        said: by group's index, what was asked for that holds it, in the user's words.
    """

    least: Mapping[int, int] = field(default_factory=dict)
    chosen: Mapping[int, IntArray] = field(default_factory=dict)
    blocks: frozenset[int] = frozenset()
    said: Mapping[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.least or self.chosen or self.blocks)

    def describe(self) -> str:
        """All that was asked for, for messages."""
        return ", ".join(dict.fromkeys(self.said.values()))


def wanted(
    model: nn.Module, graph: Graph, keep: Sequence[Least] = (), choose: Mapping[str, Sequence[int]] | None = None
) -> Wanted:
    """Read least widths and choices against a traced model.

    A layer is at least as wide as the largest of the widths whose pattern matches it. Where heads and their dimensions
    are units apart, both keep so much that the product is enough. What holds a layer holds the blocks around it.

    Raises:
        UsageError: a pattern or a layer that is none of the model's, a width above that of every layer matched, or
            channels that cannot be kept or go by themselves.
    """
    require_matches(model, keep=tuple(each.pattern for each in keep))
    least: dict[int, int] = {}
    said: dict[int, str] = {}
    held: set[str] = set()
    for each in keep:
        widths = []
        for parameter, d in _written(graph):
            if not matches(_layer(parameter), (each.pattern,)):
                continue
            held.add(parameter.name)
            widths.append(parameter.shape[d])
            for index, n in _at_least(graph, parameter.axes[d], each.share(parameter.shape[d])):
                if n > least.get(index, 0):
                    least[index], said[index] = n, each.text
        if widths and not each.relative and each.value > max(widths):
            raise UsageError(
                f"keep {each.text!r} asks for more channels than there are: the widest layer that it matches has "
                f"{max(widths)}."
            )
    chosen = _choices(graph, choose or {}, said, held)
    for index, units in chosen.items():
        if len(units) < least.get(index, 0):
            raise UsageError(
                f"{len(units)} channels are chosen for {graph.groups[index].name}, and keep asks for at least "
                f"{least[index]}; leave out one of them."
            )
    blocks = frozenset(block.index for block in graph.blocks if held.intersection(block.parameters))
    return Wanted({g: n for g, n in least.items() if g not in chosen}, chosen, blocks, said)


def _written(graph: Graph) -> Iterator[tuple[Parameter, int]]:
    """Parameters with the axes along which they write channels."""
    reading = {mask.parameter: {d for d, _ in mask.axes} for mask in graph.masks}
    for parameter in graph.parameters.values():
        for d in range(min(len(parameter.shape), 2)):
            first = d == 0 and 0 not in reading.get(parameter.name, ())
            other = d == 1 and 0 in reading.get(parameter.name, ())  # a transposed convolution
            embedding = d == 1 and parameter.axes[0] is None and parameter.axes[1] is not None
            embedding = embedding and 1 not in reading.get(parameter.name, ())
            if not parameter.is_buffer and (first or other or embedding) and parameter.shape[d] > 1:
                yield parameter, d


def _layer(parameter: Parameter) -> str:
    return parameter.name.rpartition(".")[0].partition(".parametrizations")[0]


def _at_least(graph: Graph, axis: Axis | None, share: float) -> Iterator[tuple[int, int]]:
    """Groups on an axis, with how many units leave it at least ``share`` of its indices."""
    if axis is None:
        return
    factors = max(1, int((axis.factors < graph.n_units).any(axis=0).sum()))
    there = set(np.unique(axis.factors).tolist())
    for group in graph.groups:
        if group.ranked and int(group.units[0]) in there:
            yield group.index, min(len(group), math.ceil(len(group) * share ** (1 / factors) - 1e-9))


def _choices(
    graph: Graph, choose: Mapping[str, Sequence[int]], said: dict[int, str], held: set[str]
) -> dict[int, IntArray]:
    chosen: dict[int, IntArray] = {}
    layers: dict[str, list[tuple[Parameter, int]]] = {}
    for parameter, d in _written(graph):
        if len(parameter.shape) > 1:
            layers.setdefault(_layer(parameter), []).append((parameter, d))
            layers.setdefault(parameter.name, []).append((parameter, d))
    for name, indices in choose.items():
        if name not in layers:
            near = closest(name, list(layers))
            hint = f"did you mean {', '.join(near)}?" if near else f"layers are such as {', '.join(list(layers)[:3])}."
            raise UsageError(f"choose names {shown(name)}, which is no layer that writes channels; {hint}")
        if len(layers[name]) > 1:
            raise UsageError(f"{name} has several weights; name one, of {', '.join(p.name for p, _ in layers[name])}.")
        parameter, d = layers[name][0]
        held.add(parameter.name)
        for index, units in _chosen(graph, name, parameter.axes[d], parameter.shape[d], list(indices)).items():
            if index in chosen and not np.array_equal(chosen[index], units):
                raise UsageError(
                    f"choose asks for different channels of {name} and of a layer that shares them (group "
                    f"{graph.groups[index].name}); choose them once."
                )
            chosen[index] = units
            said[index] = f"chosen for {name}"
    return chosen


def _chosen(graph: Graph, name: str, axis: Axis | None, n: int, indices: list[int]) -> dict[int, IntArray]:
    """The units to keep by group, so that just these indices of the axis are. Raises ``UsageError`` if none do that."""
    outside = [i for i in indices if not 0 <= i < n]
    if outside or len(set(indices)) < len(indices) or not indices:
        what = f"has no channel {outside[0]}" if outside else "is to keep each channel once, and one at least"
        raise UsageError(f"{name} {what}; it has channels 0 to {n - 1}, and {shown(indices)} were chosen.")
    asked = np.zeros(n, dtype=np.bool_)
    asked[indices] = True
    units = graph.all_units()
    there = np.unique(axis.factors) if axis is not None else np.zeros(0, dtype=np.int64)
    there = there[there < graph.n_units]
    kept: BoolArray = np.ones(n, dtype=np.bool_)
    if axis is not None:
        units[there] = np.isin(there, axis.factors[asked])
        kept = axis.keep(units)
    if not np.array_equal(kept, asked):
        more = np.flatnonzero(kept & ~asked).tolist()
        raise UsageError(
            f"{name} cannot keep {_few(indices)} alone: {_few(more)} would stay with them, as they are held fixed or "
            "only go together ('compress inspect' says by what)."
        )
    found = {}
    for group in graph.groups:
        if np.isin(group.units, there).any():
            found[group.index] = group.units[units[group.units]]
            if group.ranked and not len(found[group.index]):
                raise UsageError(f"choose leaves nothing of group {group.name}; keep a channel of it at least.")
    return found


def _few(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:8])) + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")
