"""From the operators of a graph to the signatures of a latency table, and the channels a table must answer for."""

from __future__ import annotations

from compressor.graph.graph import Graph
from compressor.graph.operators import Extent, Operator
from lut import Signature
from lut.surface.refine import Domain

#: The narrowest a layer is measured, as a fraction of its full width; below, the table extrapolates.
NARROWEST = 8


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


def domains(graph: Graph) -> dict[Signature, Domain]:
    """Every distinct signature of a graph with the channels it may have, in the order of their first use."""
    found: dict[Signature, Domain] = {}
    for operator in (*graph.operators, *(o.cropped for o in graph.operators if o.cropped is not None)):
        signature = signature_of(operator)
        into, out = _range(operator.channels_in), _range(operator.channels_out)
        known = found.get(signature)
        if known is not None:
            into = min(into[0], known.channels_in[0]), max(into[1], known.channels_in[1])
            out = min(out[0], known.channels_out[0]), max(out[1], known.channels_out[1])
        found[signature] = Domain(into, out if signature.axes == 2 else (1, 1), signature.axes)
    return found


def _range(extent: Extent) -> tuple[int, int]:
    full = extent.full
    return (max(1, full // NARROWEST), full) if extent.axes else (full, full)
