"""Where a network has choices: finders by kind. Other packages add theirs as entry points ``compressor.choices``.

A finder is a function of a model and its graph that returns sites with their alternatives, and may take options as
keywords; what has been found becomes units, axes and factors of costs here, so that no cost, search or trim needs to
know of the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from compressor.arrays import IntArray
from compressor.errors import UnsupportedModelError
from compressor.graph.axis import Axis
from compressor.graph.graph import Graph
from compressor.graph.groups import Alternative, Alternatives
from compressor.graph.instead import Instead, add_instead
from compressor.graph.variants import add_variants
from compressor.plugins.registry import Registry

CHOICES = Registry(
    "kind of choice",
    {
        # First, as kernels that others choose are then chosen at every resolution.
        "pooling": "compressor.graph.pooling_choices:find",
        "convolution": "compressor.graph.convolution_choices:find",
        "activation": "compressor.graph.activation_choices:find",
    },
    group="compressor.choices",
)

_MOST = 1 << 16  # of a factor of costs


@dataclass(frozen=True)
class ChoiceSite:
    """One site that a finder found.

    Attributes:
        name: of the choice, usually the module's.
        alternatives: what can be there, two at least.
        current: which of these the network has.
        scaled: by module, how its multiply-adds and weights grow by alternative: whole numbers in proportion, such as
            9, 25 and 49 for kernels of 3x3, 5x5 and 7x7. Modules left out cost the same whatever is chosen.
        operators: by module, for each alternative, what it changes of the operators that a runtime runs for the module,
            such as ``{"kernel": (5, 5), "padding": (2, 2)}``; see ``variants.FIELDS``. Nothing for what stays as the
            network has it. Needed where a latency budget is to be held; modules left out take the same time.
        instead: for alternatives that change more than these can say, all that runs under them.
    """

    name: str
    alternatives: Sequence[Alternative]
    current: int = 0
    scaled: Mapping[str, Sequence[int]] = field(default_factory=dict)
    operators: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    instead: Sequence[Instead] = ()


Finder = Callable[..., Sequence[ChoiceSite]]
"""``find(model, graph, **options)``."""


def add_choices(
    model: nn.Module, graph: Graph, kinds: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Find the choices of these kinds and make them part of ``graph``, in place. ``options`` are the finders', by kind.

    Raises:
        UnsupportedModelError: a finder returned a site that is none (fewer than two alternatives, say).
    """
    for kind in kinds:
        find: Finder = CHOICES.get(kind)
        for site in find(model, graph, **(options or {}).get(kind, {})):
            what = f"The choice {site.name!r} of kind {kind}"
            _require_site(what, site)
            units = _add(graph, kind, site)
            for place, changes in site.operators.items():
                add_variants(graph, what, place, changes, site.current, units)


def _add(graph: Graph, kind: str, site: ChoiceSite) -> IntArray:
    """Make a site part of ``graph``; returns the units of its alternatives."""
    n = len(site.alternatives)
    first = graph.n_units
    graph.grow_units(n)
    units = np.arange(first, first + n, dtype=np.int64)
    scaled = {place: tuple(int(f) for f in factors) for place, factors in site.scaled.items()}
    graph.groups.append(
        Alternatives(
            len(graph.groups),
            site.name,
            units,
            alternatives=tuple(site.alternatives),
            current=site.current,
            of=kind,
            scaled=scaled,
            timed=tuple(site.operators)
            or tuple(dict.fromkeys(o.place for term in site.instead for o in term.operators)),
        )
    )
    for place, factors in scaled.items():
        divisor = int(np.gcd.reduce(factors))
        times = np.array(factors, dtype=np.int64) // divisor
        axis = Axis(len(graph.axes), np.repeat(units, times).reshape(-1, 1))
        graph.axes.append(axis)
        current = int(times[site.current])
        for product in graph.products:
            if product.place == place:
                product.axes, product.coefficient = (*product.axes, axis), product.coefficient / current
        weight = graph.parameters.get(f"{place}.weight" if place else "weight")
        if weight is not None:
            weight.scale = (axis, current)
    add_instead(graph, site.instead, units)
    return units


def _require_site(what: str, site: ChoiceSite) -> None:
    if len(site.alternatives) < 2:
        raise UnsupportedModelError(f"{what} has {len(site.alternatives)} alternatives; a choice needs two at least.")
    if not 0 <= site.current < len(site.alternatives):
        raise UnsupportedModelError(f"{what} says that the network has alternative {site.current}, which is not there.")
    if site.alternatives[site.current].edits:
        raise UnsupportedModelError(f"{what} has edits for what the network has already; leave them out.")
    names = [alternative.name for alternative in site.alternatives]
    if len(set(names)) < len(names):
        raise UnsupportedModelError(f"{what} has two alternatives of one name ({', '.join(names)}).")
    for place, factors in site.scaled.items():
        whole = all(isinstance(f, (int, np.integer)) and 1 <= f <= _MOST for f in factors)
        if len(factors) != len(names) or not whole:
            raise UnsupportedModelError(
                f"{what} scales {place} by {list(factors)[:6]}; expected a whole number from 1 to {_MOST} for each of "
                f"its {len(names)} alternatives."
            )
