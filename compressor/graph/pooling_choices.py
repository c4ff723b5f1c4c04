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
from dataclasses import dataclass, replace
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
from compressor.graph.pooling_costs import instead
from compressor.graph.recording.forward import tensors_of
from compressor.graph.stages import Configuration, Reduction, Stages, configuration, pooled_before, rank_of

NAME = "pooling"
AS_IT_IS = "as it is"
MOST = 4096


def find(model: nn.Module, graph: Graph, *, most: int = MOST) -> list[ChoiceSite]:
    """The one site, or none; ``graph.stages`` says what was found, or why nothing can be chosen.

    Args:
        most: configurations at most; of more, so many are taken, evenly spaced in their order, with the first, the
            last and the network's own.
    """
    if most < 2:
        raise UsageError(f"At most {most} configurations were asked for; a choice needs 2 at least.")
    try:
        graph.stages = stages = complete(find_stages(model, graph), most)
        edits = [edits_of(stages, each) for each in stages.configurations]
        accounts = instead(model, graph, stages, edits_of)
    except CompressorError as error:
        graph.stages = replace(graph.stages or Stages(), configurations=(), default=None, reason=str(error).rstrip("."))
        return []
    count = math.comb(len(stages.layers) - 1, len(stages.reductions))
    if count > most:
        graph.remarks.append(
            f"{len(stages.layers)} layers and {len(stages.reductions)} pools can be combined in {count} ways; {most} "
            "of them, evenly spaced in their order, are offered."
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
    layers, pools = len(stages.layers), len(stages.reductions)
    cuts = [0, *(reduction.before for reduction in stages.reductions), layers]
    own = rank_of(tuple(b - a for a, b in pairwise(cuts)))
    count = math.comb(layers - 1, pools)
    ranks = list(range(count)) if count <= most else []
    if count > most:
        ranks = sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
        if own not in ranks:
            inner = ranks[1:-1] or ranks[:1]
            ranks[ranks.index(min(inner, key=lambda rank: abs(rank - own)))] = own
    found = tuple(configuration(layers, pools, rank) for rank in sorted(ranks))
    return replace(stages, configurations=found, default=sorted(ranks).index(own))


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


def find_stages(model: nn.Module, graph: Graph) -> Stages:
    """The stretch of the trunk with the most configurations.

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
    if len(found) < 2:
        raise UnsupportedModelError(
            "it has no trunk: layers are modules that run once and lead, by convolutions, from one activation through "
            f"which everything passes to another; it has {len(found)} of them, and 2 are needed"
        )
    first = _after_stem(found, inside, gaps)
    stretches = _stretches(found, inside, gaps, first)
    best = max(stretches, key=lambda s: (s.count, -s.first))
    staying = _staying(found, inside, gaps, best)
    if best.count < 1 or not best.reductions:
        raise UnsupportedModelError(_nothing(staying))
    names = tuple(layer.name for layer in found[best.first : best.last + 1])
    if best.count == 1:
        raise UnsupportedModelError(
            f"{len(names)} layers and {len(best.reductions)} pools can be combined in one way only "
            f"({', '.join(names[:6])})"
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
    return Stages(names, tuple(best.reductions), sizes=tuple(sizes), staying=tuple(staying))


@dataclass
class _Stretch:
    """Layers ``first`` to ``last`` without a change of size that has to stay."""

    first: int
    last: int
    reductions: list[Reduction]

    @property
    def count(self) -> int:
        return math.comb(self.last - self.first, len(self.reductions)) if self.reductions else 0


def _after_stem(found: list[Layer], inside: Sequence[Fall | None], gaps: Sequence[Fall | None]) -> int:
    """The first layer that is none of a stem: where one of the convolutions before the first block reduces."""
    blocks = [i for i, layer in enumerate(found) if layer.block]
    stem = blocks[0] if blocks else 1
    reduces = any(inside[:stem]) or any(gaps[: max(stem - 1, 0)])
    return stem if reduces else 0


def _stretches(
    found: list[Layer], inside: Sequence[Fall | None], gaps: Sequence[Fall | None], first: int
) -> list[_Stretch]:
    """The layers from ``first`` on, divided where a change of the size has to stay."""
    stretch = _Stretch(first, first, [])
    stretches = [stretch]
    for i in range(first + 1, len(found)):
        changes = [change for change in (gaps[i - 1], inside[i]) if change is not None]
        if any(change.reason for change in changes):
            stretch = _Stretch(i, i, [])
            stretches.append(stretch)
            continue
        stretch.last = i
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
