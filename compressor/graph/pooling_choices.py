"""Where to pool: the choices of balanced mixtures (Javan et al., "Balanced Mixture of SuperNets for Learning the CNN
Pooling Architecture", 2023), on any backbone with stages.

One site with the network as it is and every configuration: how many of the trunk's layers run at each resolution. In a
configuration all strided modules of the movable reductions keep their resolution, and ``max_pool`` stands before the
layers where the resolution is to fall, the network's own configuration included. Weights stay what they are.

The stem stays. If a convolution of the stem reduces (images of 224x224), the stem is no layer; else it is the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from torch import nn

from compressor.architecture.edits import Edit, KeepResolution, PlacePooling, SetSizes
from compressor.errors import CompressorError, UnsupportedModelError, UsageError
from compressor.graph.analysis.falls import Fall, fall
from compressor.graph.analysis.trunk import Layer, layers
from compressor.graph.choices import ChoiceSite
from compressor.graph.graph import Graph
from compressor.graph.groups import Alternative
from compressor.graph.inputs.batch import record_one
from compressor.graph.patterns import matches
from compressor.graph.pooling_costs import instead
from compressor.graph.recording.forward import tensors_of
from compressor.graph.stages import Configuration, Reduction, Stages, configuration, pooled_before, rank_of

NAME = "pooling"
AS_IT_IS = "as it is"
MOST = 4096


def find(
    model: nn.Module, graph: Graph, *, include: Sequence[str] = (), exclude: Sequence[str] = (), most: int = MOST
) -> list[ChoiceSite]:
    """The one site, or none; ``graph.stages`` says what was found, or why nothing can be chosen.

    Args:
        include: patterns over names: only these modules lose their strides, and have pools put before them.
        exclude: patterns of modules that stay as they are.
        most: configurations at most; of more, so many are taken, evenly spaced in their order, with the first, the
            last and the network's own.
    """
    if most < 2:
        raise UsageError(f"At most {most} configurations were asked for; a choice needs 2 at least.")
    try:
        graph.stages = stages = complete(find_stages(model, graph, include, exclude), most)
        edits = [edits_of(stages, each) for each in stages.configurations]
        accounts = instead(model, graph, stages, edits_of)
    except CompressorError as error:
        graph.stages = replace(graph.stages or Stages(), configurations=(), default=None, reason=str(error).rstrip("."))
        return []
    count = math.comb(len(stages.places), len(stages.reductions))
    if count > most:
        graph.remarks.append(
            f"{len(stages.places) + 1} layers and {len(stages.reductions)} pools can be combined in {count} ways; "
            f"{most} of them, evenly spaced in their order, are offered."
        )
    named = [Alternative(str(list(c)), tuple(e)) for c, e in zip(stages.configurations, edits, strict=True)]
    return [ChoiceSite(NAME, [Alternative(AS_IT_IS), *named], instead=accounts)]


def require_some(graph: Graph) -> None:
    """Raise ``UnsupportedModelError`` with the reason if there is nothing to choose."""
    if any(choice.of == "pooling" for choice in graph.choices):
        return
    reason = graph.stages.reason if graph.stages is not None else "nobody looked"
    raise UnsupportedModelError(f"Where {graph.model_class} pools cannot be chosen: {reason}.")


def complete(stages: Stages, most: int = MOST) -> Stages:
    """With all configurations, or ``most`` of them, and which of them the network has."""
    places, pools = stages.places, len(stages.reductions)
    count = math.comb(len(places), pools)
    ranks = range(count) if count <= most else sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
    found = [
        _at([places[i - 1] for i in pooled_before(configuration(len(places) + 1, pools, r))], stages) for r in ranks
    ]
    own = _at([reduction.before for reduction in stages.reductions], stages)
    if own not in found:
        if count > most:
            inner = found[1:-1] or found[:1]
            found.remove(min(inner, key=lambda each: abs(rank_of(each) - rank_of(own))))
        found = sorted([*found, own])
    return replace(stages, configurations=tuple(found), default=found.index(own))


def _at(pooled: Sequence[int], stages: Stages) -> Configuration:
    """The configuration that pools before these layers."""
    return tuple(b - a for a, b in pairwise([0, *pooled, len(stages.layers)]))


def edits_of(stages: Stages, chosen: Configuration) -> list[Edit]:
    """What makes a configuration of the network as it is."""
    edits: list[Edit] = []
    names = list(dict.fromkeys(name for reduction in stages.reductions for name in reduction.modules))
    if names:
        edits.append(KeepResolution(names))
    for reduction in stages.reductions:
        edits += [SetSizes(module, {attribute: 1}) for module, attribute, _ in reduction.attributes]
    for at, reduction in zip(pooled_before(chosen), stages.reductions, strict=True):
        edits.append(PlacePooling(stages.layers[at], list(reduction.factor), "max", "input"))
    return edits


def find_stages(model: nn.Module, graph: Graph, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Stages:
    """The stretch of the trunk with the most configurations. Patterns as of ``find``.

    Raises:
        UnsupportedModelError: there is none, with the reason and no full stop.
    """
    if graph.retrace is None:
        raise UnsupportedModelError("its inputs hold more than tensors and numbers, so it cannot be traced again")
    parameter = next(model.parameters())
    seen, _, _ = record_one(
        model, tensors_of(model), graph.retrace.arguments(parameter.device), graph.retrace.batch_axis, ()
    )
    found, dataflow = layers(seen)
    modules = seen.recorder.modules.by_name
    nodes = seen.recorder.nodes
    inside = [fall(nodes, dataflow, modules, (each.start, each.end), each.before, each.after) for each in found]
    gaps = [fall(nodes, dataflow, modules, (a.end, b.start), a.after, b.before) for a, b in pairwise(found)]
    seen.recorder.release()
    held = [_held(layer.name, include, exclude) for layer in found]
    inside = [_left_alone(change, include, exclude) for change in inside]
    gaps = [_left_alone(change, include, exclude) for change in gaps]
    if len(found) < 2:
        raise UnsupportedModelError(
            "it has no trunk: layers are modules that run once and lead, by convolutions, from one activation through "
            f"which everything passes to another; it has {len(found)} of them, and 2 are needed"
        )
    first = _after_stem(found, inside, gaps)
    stretches = _stretches(found, inside, gaps, first, held)
    best = max(stretches, key=lambda s: (s.count, -s.first))
    staying = _staying(found, inside, gaps, best)
    if best.count < 1 or not best.reductions:
        raise UnsupportedModelError(_nothing(staying))
    names = tuple(layer.name for layer in found[best.first : best.last + 1])
    if best.count == 1:
        left = ", as pools stand before modules alone that are included and not excluded" if any(held) else ""
        raise UnsupportedModelError(
            f"{len(names)} layers and {len(best.reductions)} pools can be combined in one way only "
            f"({', '.join(names[:6])}){left}"
        )
    size = found[best.first].after
    sizes = [size]
    for reduction in best.reductions:
        size = tuple(n // f for n, f in zip(size, reduction.factor, strict=True))
        sizes.append(size)
        if min(size) < 1:
            raise UnsupportedModelError(
                f"its inputs are too small: pools from {_by(sizes[0])} on would leave nothing at resolution "
                f"{len(sizes)} of {len(best.reductions) + 1}; give larger ones (--input-shape)"
            )
    return Stages(names, tuple(best.reductions), places=tuple(best.places), sizes=tuple(sizes), staying=tuple(staying))


def _held(name: str, include: Sequence[str], exclude: Sequence[str]) -> str:
    """Why a module is to be left alone; nothing if it is not."""
    if exclude and matches(name, exclude):
        return "excluded"
    return "not included" if include and not matches(name, include) else ""


def _left_alone(change: Fall | None, include: Sequence[str], exclude: Sequence[str]) -> Fall | None:
    """The change, which stays if one of the modules that make it is to be left alone."""
    if change is None or change.reason:
        return change
    for name in (*change.modules, *(module for module, _, _ in change.attributes)):
        if why := _held(name, include, exclude):
            return replace(change, reason=f"{name} is {why}")
    return change


@dataclass
class _Stretch:
    """Layers ``first`` to ``last`` without a change of size that has to stay; ``places`` are those, from ``first`` on,
    that a pool may stand before."""

    first: int
    last: int
    reductions: list[Reduction] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Configurations, the network's own among them."""
        own = {reduction.before for reduction in self.reductions} <= set(self.places)
        return math.comb(len(self.places), len(self.reductions)) + (not own) if self.reductions else 0


def _after_stem(found: list[Layer], inside: Sequence[Fall | None], gaps: Sequence[Fall | None]) -> int:
    """The first layer that is none of a stem: where one of the convolutions before the first block reduces."""
    blocks = [i for i, layer in enumerate(found) if layer.block]
    stem = blocks[0] if blocks else 1
    reduces = any(inside[:stem]) or any(gaps[: max(stem - 1, 0)])
    return stem if reduces else 0


def _stretches(
    found: list[Layer], inside: Sequence[Fall | None], gaps: Sequence[Fall | None], first: int, held: Sequence[str]
) -> list[_Stretch]:
    """The layers from ``first`` on, divided where a change of the size has to stay; ``held`` are to be left alone."""
    stretch = _Stretch(first, first)
    stretches = [stretch]
    for i in range(first + 1, len(found)):
        changes = [change for change in (gaps[i - 1], inside[i]) if change is not None]
        if any(change.reason for change in changes):
            stretch = _Stretch(i, i)
            stretches.append(stretch)
            continue
        stretch.last = i
        if not held[i]:
            stretch.places.append(i - stretch.first)
        if changes:
            stretch.reductions.append(_reduction(changes, i - stretch.first))
    return stretches


def _reduction(changes: list[Fall], before: int) -> Reduction:
    factor = tuple(math.prod(axis) for axis in zip(*(change.factor for change in changes), strict=True))
    modules = tuple(name for change in changes for name in change.modules)
    return Reduction(modules, before, factor, tuple(a for change in changes for a in change.attributes))


def _staying(
    found: list[Layer], inside: Sequence[Fall | None], gaps: Sequence[Fall | None], best: _Stretch
) -> list[str]:
    """What of the changes is not among those that can move, and why."""
    told = []
    for i, layer in enumerate(found):
        gap = gaps[i - 1] if i else None
        for change, where in ((gap, f"before {layer.name}"), (inside[i], f"in {layer.name}")):
            moves = best.first < i <= best.last
            if change is None or moves:
                continue
            why = change.reason or ("the stem stays" if i <= best.first else "beyond what is searched")
            told.append(f"{_by(change.before)} to {_by(change.after)} {where}: {why}")
    return told


def _nothing(staying: list[str]) -> str:
    if not staying:
        return "its resolution falls nowhere along the trunk"
    more = f", and {len(staying) - 3} more" if len(staying) > 3 else ""
    return f"no reduction of it can move ({'; '.join(staying[:3])}{more})"


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
