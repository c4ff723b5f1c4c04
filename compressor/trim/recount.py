"""The costs of a trimmed network, counted anew on the network itself."""

from __future__ import annotations

import torch
from torch import nn

from compressor.arrays import BoolArray, UnitMask
from compressor.costs import build
from compressor.costs.sizes import Sizes
from compressor.errors import CompressorError
from compressor.graph.capture import capture
from compressor.graph.graph import Graph
from compressor.graph.inputs.input_axes import Arguments, input_tensors

_ROUNDING = 1e-9


def disagreement(
    model: nn.Module, trimmed: nn.Module, graph: Graph, units: UnitMask, gates: BoolArray, inputs: Arguments
) -> str:
    """Why the multiply-adds or parameters of ``trimmed`` are not those that its decision was told to have; "" if not.

    A forward that does work which the trace could not connect with what was removed (weights put in place as it runs,
    say) computes the same and costs more. A forward that decides by values may do other work each time, and branches
    at a lower resolution count their own resampling: these are not compared.

    Args:
        units, gates: what was kept, shapes (n_units + 1,) and (n_blocks,).
        inputs: those that ``graph`` was captured on; with others there is nothing to compare.
    """
    one = inputs if graph.inputs is None else graph.inputs.one(inputs)
    traced = [tuple(t.shape) for t in input_tensors(*one)] == graph.input_shapes
    if not graph.on_meta or graph.resolutions or not traced:
        return ""
    axes = graph.inputs.batch if graph.inputs is not None and graph.inputs.batched else None
    try:
        again = capture(trimmed, inputs[0], example_kwargs=inputs[1], batch_axis=axes)
    except CompressorError as error:
        try:
            capture(model, inputs[0], example_kwargs=inputs[1], batch_axis=axes)
        except CompressorError:  # nor can the original any more: it was converted to another type since, say
            return ""
        return f"the trimmed network cannot be traced: {error}"
    if not again.on_meta:
        return ""
    sizes = Sizes(graph, torch.from_numpy(units[: graph.n_units].astype("float64")), torch.from_numpy(gates * 1.0))
    for name, unit in (("flops", "multiply-adds"), ("params", "parameters")):
        with torch.no_grad():
            told = float(build(name, graph)(sizes))
        found = build(name, again).original
        # Sums over a single element become plain multiplications in PyTorch, which nobody counts.
        less = name == "flops" and found < told
        if abs(told - found) > _ROUNDING * max(told, found) and not less:
            return f"it was told to have {told:,.0f} {unit}, and has {found:,.0f}"
    return ""
