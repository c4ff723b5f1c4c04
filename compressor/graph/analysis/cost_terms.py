"""What a traced network spends: multiply-adds per operator, activation buffers with their lifetimes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from compressor.arrays import IntArray
from compressor.graph.analysis.lifetimes import Terms, any_of, both, stretches
from compressor.graph.analysis.units import Analysis
from compressor.graph.axis import Axis
from compressor.graph.graph import ProductTerm, Storage
from compressor.graph.recording.values import Node, Value


class Accounts:
    """Cost terms over the axes that an analysis has found."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis

    def products(self, gates: Mapping[int, tuple[int, ...]]) -> list[ProductTerm]:
        """Multiply-adds of every operator; ``gates`` gives the blocks that nodes lie in."""
        terms = []
        self._analysis.resolve(axis for product in self._analysis.flow.products for axis in product.axes)
        for product in self._analysis.flow.products:
            coefficient, axes = self._sized([(a, len(a)) for a in product.axes])
            share, spatial = self._analysis.spatial(product.node.index, product.node.outputs[0])
            terms.append(
                ProductTerm(
                    coefficient * product.coefficient * share,
                    axes + spatial,
                    product.kind,
                    product.node.place,
                    gates.get(product.node.index, ()),
                    node=product.node.index,
                )
            )
        return terms

    def resampling(self, gates: Mapping[int, tuple[int, ...]]) -> tuple[list[ProductTerm], list[Storage]]:
        """What changing resolutions costs: multiply-adds per axis (the first axis at the full length of those behind
        it, before and after), and the resampled input."""
        terms, storages = [], []
        for spatial in self._analysis.resolutions.spatial:
            found, stream = spatial.found, spatial.stream
            coefficient, channels = self._sized(list(zip(stream.axes[:2], stream.shape[:2], strict=True)))
            inside = gates.get(spatial.readers[0], ())
            for d, (axis, n) in enumerate(zip(found.axes, spatial.lengths, strict=True)):
                times = coefficient * n * math.prod(spatial.lengths[d + 1 :]) * (len(found.inputs) + 1)
                terms.append(
                    ProductTerm(times, channels + found.axes[: d + 1], "resample", found.output, inside, (axis,))
                )
            storages.append(
                Storage(coefficient * stream.itemsize, channels + found.axes, *spatial.readers, inside, found.axes)
            )
        return terms, storages

    def _sized(self, axes: list[tuple[IntArray | None, int]]) -> tuple[float, tuple[Axis, ...]]:
        coefficient, kept = 1.0, []
        for labels, n in axes:
            axis = self._analysis.axis(labels)
            if axis is None:
                coefficient *= n
            else:
                kept.append(axis)
        return coefficient, tuple(kept)

    def storages(
        self,
        nodes: list[Node],
        outputs: list[Value],
        constants: set[int],
        gates: Mapping[int, tuple[int, ...]],
        sums: Mapping[int, list[tuple[int, int, int]]],
        aggregated: Mapping[int, tuple[int, Terms, Terms]],
        beside: Collection[int] = (),
    ) -> list[Storage]:
        """Activation buffers with their lifetimes. Views and in-place results share the buffer they lie in.

        Without its block, a sum is the stream itself: for as long as the stream would have lived, ``sums`` (per
        storage, the node, block and stream's storage of each sum in it) makes the sum's buffer depend on the block.
        A sum of operators side by side is a buffer of its own where it sums two that are there; else it is the one that
        is there (``aggregated``, by storage: the addition's node, when it is one, and when there is a result). What
        such operators read lives until the last of them that is there has read it; ``beside`` are their blocks.
        """
        apart = {n: tuple(b for b in blocks if b in beside) for n, blocks in gates.items()} if beside else {}
        readers: dict[int, list[int]] = {}
        made: dict[int, tuple[Value, int]] = {}
        last: dict[int, int] = {}
        for node in nodes:
            for value in node.inputs:
                if value.storage not in constants:
                    made.setdefault(value.storage, (value, node.index))
                    last[value.storage] = node.index
                    readers.setdefault(value.storage, []).append(node.index)
            for value in node.outputs:
                if value.storage not in constants:
                    made.setdefault(value.storage, (value, node.index))
                    last.setdefault(value.storage, node.index)
        for value in outputs:
            if value.storage in last:
                last[value.storage] = len(nodes) - 1
        found = []
        self._analysis.resolve(axis for value, _ in made.values() for axis in value.axes)
        for storage, (value, birth) in made.items():
            coefficient, axes = self._sized(list(zip(value.axes, value.shape, strict=True)))
            made_here = value.producer is not None and value.producer.index == birth
            local = self._analysis.resolutions.of(birth)
            if local is not None and made_here and storage not in local.ends:
                share, spatial = self._analysis.spatial(birth, value)
                coefficient, axes = coefficient * share, axes + spatial
            inside = gates.get(birth, ()) if made_here else ()
            start, death = birth, last[storage]
            if storage in aggregated and made_here and aggregated[storage][0] == birth:
                # At the addition the operands are alive, too; afterwards there is one buffer, whichever it is.
                size = coefficient * value.itemsize
                for factor, blocks in aggregated[storage][1]:
                    found.append(Storage(factor * size, axes, birth, birth, (*inside, *blocks)))
                there, start = aggregated[storage][2], birth + 1
            else:
                there = any_of(None)
            for add, block, stream in sums.get(storage, ()):
                until = min(last.get(stream, add), death)
                if until >= start:
                    own = inside if block in inside else (*inside, block)
                    found.append(
                        Storage(coefficient * value.itemsize, axes, start, until, own, continues=start > birth)
                    )
                    start = until + 1
                inside = gates.get(add, ())
            for first, until, terms in stretches(start, death, readers.get(storage, []), apart, inside):
                for factor, blocks in both([there, terms]) if first <= until else ():
                    size = factor * coefficient * value.itemsize
                    found.append(Storage(size, axes, first, until, (*inside, *blocks), continues=first > birth))
        return found
