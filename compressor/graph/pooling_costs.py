"""What configurations of pools cost, from traces of a few of them.

A layer runs at one of a few resolutions, whatever the rest of the configuration is, and its costs depend on that
alone. So ``p + 1`` configurations of ``p`` pools show everything: in that of number ``r``, the first ``r`` pools stand
as early as they can and the others as late as they can, and a layer runs at every resolution that it can have in one.

Activations are divided at the pools' places: until a place, a layer's output is as large as the layer before makes it;
from there on as the layer behind reads it. At the place itself a pool's input and output are alive together.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from compressor.architecture.edits import Edit, Work
from compressor.errors import CompressorError, UnsupportedModelError
from compressor.graph.graph import Graph, Storage
from compressor.graph.inputs.batch import first_line
from compressor.graph.instead import Instead
from compressor.graph.operators import Extent, Operator
from compressor.graph.stages import Configuration, Stages, pooled_before
from compressor.graph.translate import Translation
from compressor.nn.copying import same_tensors

Edits = Callable[[Stages, Configuration], list[Edit]]


def instead(model: nn.Module, graph: Graph, stages: Stages, edits: Edits) -> list[Instead]:
    """The costs of all configurations; the first one is alternative 1.

    Raises:
        UnsupportedModelError: with pools elsewhere, the network does not run, or it does something else.
    """
    probes = [_Probe(model, graph, stages, c, edits(stages, c)) for c in _probed(stages)]
    if len({probe.length for probe in probes}) > 1:
        raise UnsupportedModelError("it does other things when it pools elsewhere, besides computing on other sizes")
    pools = [pooled_before(c) for c in stages.configurations]
    found = []
    for layer in range(len(stages.layers)):
        for v in range(len(stages.reductions) + 1):
            there = [i for i, at in enumerate(pools) if bisect_right(at, layer) == v]
            for pooled in (False, True):
                chosen = tuple(i + 1 for i in there if (layer in pools[i]) is pooled)
                if not chosen:
                    continue
                # What is right behind a pool may differ: a block there cannot be taken out.
                alike = [probe for probe in probes if probe.levels[layer] == v]
                probe = next((p for p in alike if (layer in p.at) is pooled), alike[0])
                found.append(probe.layer(chosen, layer))
                if pooled:
                    found.append(probe.pool(chosen, layer, v, probes[0]))
    return found


def _probed(stages: Stages) -> list[Configuration]:
    n, p = len(stages.layers), len(stages.reductions)
    found = []
    for r in range(p + 1):
        at = [*range(1, r + 1), *range(n - p + r, n)]
        found.append(tuple(b - a for a, b in zip([0, *at], [*at, n], strict=True)))
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Pool:
    """What a pool does in a probe: its operators, and bytes of what it makes, of which ``kept`` is read later; and of
    one element."""

    operators: tuple[Operator, ...]
    made: float
    kept: float
    itemsize: float


class _Probe:
    """The trace of one configuration, in times that all of them share: a pool's place is one moment, used or not."""

    def __init__(
        self, model: nn.Module, graph: Graph, stages: Stages, configuration: Configuration, edits: list[Edit]
    ) -> None:
        from compressor.graph.capture import capture  # which knows of no choices

        assert graph.retrace is not None, "stages were found by a trace"
        self.stages = stages
        self.at = pooled_before(configuration)
        self.levels = [bisect_right(self.at, layer) for layer in range(len(stages.layers))]
        changed = same_tensors(model)
        work = Work(changed)
        for edit in edits:
            edit.check(work)
            edit.apply_(work)
        args, kwargs = graph.retrace.arguments(next(model.parameters()).device)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Using padding='same' with even kernel")  # as patches have it
                traced = capture(changed, args, example_kwargs=kwargs, **graph.retrace.options())
        except CompressorError as error:
            divide = all(
                n % math.prod(axis) == 0
                for n, axis in zip(
                    stages.sizes[0], zip(*(r.factor for r in stages.reductions), strict=True), strict=True
                )
            )
            advice = "" if divide else "; of sizes that a pool does not divide it leaves one less than a stride does"
            raise UnsupportedModelError(
                f"pooled as {list(configuration)} it does not run ({first_line(error.__cause__ or error)}{advice})"
            ) from error
        missing = [name for name in stages.layers if name not in traced.spans]
        if missing:
            raise UnsupportedModelError(f"pooled as {list(configuration)} it runs {missing[0]} another number of times")
        for name, v in zip(stages.layers, self.levels, strict=True):
            size = traced.spans[name].shape[2:]
            if size != stages.sizes[v]:
                raise UnsupportedModelError(
                    f"pooled as {list(configuration)}, {name} gives {list(size)}, and not {list(stages.sizes[v])}"
                )
        self.starts = [traced.spans[name].start for name in stages.layers]
        self.nodes = _pool_nodes(len(stages.sizes[0]))
        translation = Translation(traced, graph)
        self.products = translation.products()
        self.storages = translation.storages()
        self.operators = translation.operators()
        self.pools: dict[int, _Pool] = {layer: self._pool(layer) for layer in self.at}
        self.length = len(self.products)

    # ---- what a layer costs at the resolution that it has here

    def layer(self, alternatives: tuple[int, ...], layer: int) -> Instead:
        return Instead(
            alternatives,
            tuple(p for p in self.products if self._owner(p.node) == layer),
            tuple(self._alive(layer)),
            tuple(o for o in self.operators if self._owner(o.node) == layer and not self._is_pool(o.node)),
        )

    def pool(self, alternatives: tuple[int, ...], layer: int, v: int, seen: _Probe) -> Instead:
        """The pool before a layer, as another probe ``seen`` has it before some layer."""
        pool = seen.pools[seen.at[v - 1]]
        place = self._place(layer)
        read = [s for s in self.storages if self._birth(s) <= place < self._time(s.death)]
        if not read:
            return Instead(alternatives)
        largest = max(read, key=lambda s: s.bytes * math.prod(len(axis) for axis in s.axes))
        storage = replace(largest, bytes=largest.bytes * pool.made / pool.kept, birth=place, death=place)
        size = self.stages.sizes[v]
        channels = Extent(largest.bytes / pool.itemsize / math.prod(size), largest.axes)
        name = self.stages.layers[layer]
        operators = tuple(
            replace(
                operator,
                place=name,
                channels_in=channels,
                channels_out=channels,
                copies=replace(operator.copies, gates=largest.gates),
            )
            for operator in pool.operators
        )
        return Instead(alternatives, storages=(storage,), operators=operators)

    # ---- times

    def _owner(self, node: int) -> int:
        """The last layer that started before a node, or at it."""
        return max(bisect_right(self.starts, node) - 1, 0)

    def _is_pool(self, node: int) -> bool:
        return any(self.starts[layer] <= node < self.starts[layer] + self.nodes for layer in self.at)

    def _time(self, node: int) -> int:
        """When a node runs: without nodes of pools, and with a moment for each place."""
        for layer in self.at:
            if self.starts[layer] <= node < self.starts[layer] + self.nodes:
                return self._place(layer)
        gone = self.nodes * sum(self.starts[layer] < node for layer in self.at)
        return node - gone + sum(start <= node for start in self.starts[1:])

    def _birth(self, storage: Storage) -> int:
        """When a storage begins: what continues another does so at once, be it at a pool's place."""
        return self._time(storage.birth - 1) + 1 if storage.continues else self._time(storage.birth)

    def _place(self, layer: int) -> int:
        """The moment right before a layer, where a pool may stand."""
        if layer == 0:
            return -1
        gone = self.nodes * sum(at < layer for at in self.at)
        return self.starts[layer] - gone + layer - 1

    # ---- activations

    def _alive(self, layer: int) -> list[Storage]:
        """Activations from the place before a layer up to the place behind it."""
        first = self._place(layer) + 1
        last = self._place(layer + 1) if layer + 1 < len(self.starts) else None
        found = []
        for storage in self.storages:
            birth, death = self._birth(storage), self._time(storage.death)
            if self._is_pool(storage.birth) and not storage.continues:
                birth += 1  # what a pool makes counts with the pool until the layer starts
            birth, death = max(birth, first), death if last is None else min(death, last)
            if birth <= death:
                found.append(replace(storage, birth=birth, death=death))
        return found

    def _pool(self, layer: int) -> _Pool:
        start = self.starts[layer]
        made = [s for s in self.storages if start <= s.birth < start + self.nodes and not s.continues]
        total = sum(_total(s) for s in made)
        kept = max((_total(s) for s in made if s.death >= start + self.nodes), default=total)
        operators = [o for o in self.operators if start <= o.node < start + self.nodes]
        channels = next((operator.channels_out.full for operator in operators), 0)
        elements = channels * math.prod(self.stages.sizes[self.levels[layer]])
        return _Pool(tuple(operators), total, kept, kept / elements if elements else 4.0)


def _total(storage: Storage) -> float:
    return storage.bytes * math.prod(len(axis) for axis in storage.axes)


def _pool_nodes(axes: int) -> int:
    """How many operator calls a max pool is: in one dimension PyTorch pools a picture of one row."""
    return 3 if axes == 1 else 1
