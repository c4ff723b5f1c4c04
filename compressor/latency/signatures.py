"""From the operators of a graph to the signatures of a latency table, and the channels a table must answer for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from compressor.arrays import BoolArray
from compressor.graph.graph import Graph
from compressor.graph.operators import Extent, Operator
from lut import Point, Signature
from lut.surface.refine import Domain

#: The narrowest a layer is measured, as a fraction of its full width; below, the table extrapolates.
NARROWEST = 8


@dataclass(frozen=True)
class Run:
    """One operator of a graph, or what it is under one alternative of a choice.

    ``of`` is its place in ``graph.operators``; ``unit`` the alternative's, ``None`` for what runs in any case.
    """

    operator: Operator
    of: int
    unit: int | None = None


@dataclass
class Asked:
    """What a table must answer for, of one signature: the channels of a domain, or nothing but the ``points``."""

    domain: Domain
    points: dict[Point, None] = field(default_factory=dict)
    """Where no operator's channels can change."""
    varies: bool = False


def runs(graph: Graph) -> list[Run]:
    """Every operator, those that a choice changes by alternative, in the order in which they run."""
    found = []
    for index, operator in enumerate(graph.operators):
        if operator.variants:
            units = operator.variant_units
            found += [Run(o, index, unit) for o, unit in zip(operator.variants, units, strict=True)]
        else:
            found.append(Run(operator, index))
    return found


def signature_of(operator: Operator) -> Signature:
    """What of an operator decides its time besides its channels."""
    return Signature(
        kind=operator.kind,
        kernel=operator.kernel,
        stride=operator.stride,
        padding=operator.padding,
        dilation=operator.dilation,
        groups=operator.groups,
        depthwise=operator.depthwise,
        spatial=operator.spatial,
        fused=operator.fused,
        attributes=tuple(operator.attributes.items()),
        axes=1 if operator.one_axis else 2,
    )


def asked(graph: Graph, decides: frozenset[str] | None = None) -> dict[Signature, Asked]:
    """Every distinct signature of a graph with the channels it may have, in the order of their first use.

    Args:
        decides: components that a method decides on (``MethodConfig.decides``), ``None`` for all: what depends on none
            of them keeps its channels, and is measured at these alone.
    """
    changes = _may_change(graph, decides)
    operators = [run.operator for run in runs(graph)]
    found: dict[Signature, Asked] = {}
    for operator in (*operators, *(o.cropped for o in operators if o.cropped is not None)):
        signature = signature_of(operator)
        into, out = _range(operator.channels_in, changes), _range(operator.channels_out, changes)
        varies = into[0] < into[1] or out[0] < out[1]
        full = (into[1], out[1]) if signature.axes == 2 else (into[1], into[1])
        known = found.get(signature)
        if known is not None:
            into = _union(into, known.domain.channels_in)
            out = _union(out, known.domain.channels_out)
        domain = Domain(into, out if signature.axes == 2 else (1, 1), signature.axes)
        points = dict.fromkeys([*(known.points if known is not None else ()), full])
        found[signature] = Asked(domain, points, varies or (known is not None and known.varies))
    return found


def domains(graph: Graph) -> dict[Signature, Domain]:
    """Every distinct signature of a graph with the channels it may have, in the order of their first use."""
    return {signature: each.domain for signature, each in asked(graph).items()}


def _may_change(graph: Graph, decides: frozenset[str] | None) -> BoolArray:
    """Which units a method decides on, and the constant last one, shape (n_units + 1,)."""
    changes = np.ones(graph.n_units + 1, dtype=np.bool_)
    changes[-1] = False
    for group in graph.groups:
        changes[group.units] = decides is None or group.component in decides
    return changes


def _range(extent: Extent, changes: BoolArray) -> tuple[int, int]:
    full = extent.full
    varies = any(changes[axis.factors].any() for axis in extent.axes)
    return (max(1, full // NARROWEST), full) if varies else (full, full)


def _union(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    return min(one[0], two[0]), max(one[1], two[1])
