"""Alternatives under which other things run than the network runs now, as whole terms of cost.

``ChoiceSite.scaled`` says of modules how much more they compute. Where an alternative changes the size of activations,
everything behind it changes, by factors that are no whole numbers. So a finder may give terms of their own: they count
under the alternatives that they are for, and what the network has counts under the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from compressor.arrays import IntArray
from compressor.graph.axis import Axis
from compressor.graph.graph import Graph, ProductTerm, Storage
from compressor.graph.operators import Operator


@dataclass(frozen=True)
class Instead:
    """What runs under some ``alternatives``, over axes and blocks of the graph.

    All terms together, of all that name an alternative, are what the network then runs; what it runs now is left out.
    Storages may lie at any times, as long as two of one alternative lie at the times that they are alive together.
    """

    alternatives: tuple[int, ...]
    products: tuple[ProductTerm, ...] = ()
    storages: tuple[Storage, ...] = ()
    operators: tuple[Operator, ...] = ()


def add_instead(graph: Graph, terms: Sequence[Instead], units: IntArray) -> None:
    """Make the terms part of ``graph``, in place; ``units`` are those of the alternatives, shape (n_alternatives,)."""
    if not terms:
        return
    axes: dict[tuple[int, ...], Axis] = {}

    def when(alternatives: Iterable[int]) -> Axis:
        """An axis as long as one of these alternatives is probable."""
        key = tuple(alternatives)
        if key not in axes:
            axes[key] = Axis(len(graph.axes), units[list(key)].reshape(-1, 1))
            graph.axes.append(axes[key])
        return axes[key]

    said = {i for term in terms for i in term.alternatives}
    rest = when(i for i in range(len(units)) if i not in said)
    for product in graph.products:
        product.axes = (*product.axes, rest)
    for storage in graph.storages:
        storage.axes = (*storage.axes, rest)
    for operator in graph.operators:
        _bind(operator, rest)
    after = max((storage.death for storage in graph.storages), default=0) + 2
    for term in terms:
        if not term.alternatives:
            continue
        axis = when(term.alternatives)
        graph.products += [replace(p, axes=(*p.axes, axis)) for p in term.products]
        graph.storages += [
            replace(s, axes=(*s.axes, axis), birth=s.birth + after, death=s.death + after) for s in term.storages
        ]
        for operator in term.operators:
            made = replace(operator, copies=replace(operator.copies))
            _bind(made, axis)
            graph.operators.append(made)


def _bind(operator: Operator, axis: Axis) -> None:
    """Let an operator run as often as ``axis`` is long."""
    copies = operator.copies
    operator.copies = replace(copies, axes=(*copies.axes, axis))
    operator.variants = tuple(replace(variant, copies=operator.copies) for variant in operator.variants)
