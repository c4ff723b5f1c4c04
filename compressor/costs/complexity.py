"""Operations by the formulas of DNArch (Romero and Zeghidour, 2023, appendix C.2), for networks with long convolutions.

    pointwise and other products     L N_in N_out (times the taps of a kernel)
    long depthwise convolution       N L log2(L), as through the FFT, whatever its kernel (the paper leaves out N)
    elementwise                      L N: normalisation, activations, additions

Long are depthwise kernels of at least ``LONG`` taps when whole. Multiply-adds (``flops``) count such a convolution as
the exported network computes it, tap by tap; this counts it as training does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressor.costs.base import CostTerm, Products
from compressor.costs.sizes import Sizes
from compressor.graph.graph import Graph
from compressor.graph.operators import Extent, Operator

LONG = 64
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_ELEMENTWISE = {"batch_norm", "layer_norm", "group_norm", "add", "mul", "scale", "softmax", "relu", "gelu", "silu",
                "sigmoid", "tanh", "hardswish", "hardsigmoid", "leaky_relu", "elu", "mish", "softplus", "relu6",
                "clip"}  # fmt: skip


class Complexity(CostTerm):
    """Operations of one forward pass, products and elementwise ones alike."""

    name = "complexity"
    unit = "operations"

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        operators = [o for o in graph.operators if o.weights or o.fused or o.kind in _ELEMENTWISE or _is_product(o)]
        rows = {
            "into": [o.channels_in for o in operators],
            "out": [o.channels_out for o in operators],
            "copies": [o.copies for o in operators],
            "taps": [o.taps for o in operators],
            "share": [Extent(o.copies.coefficient, o.copies.axes) if _long(o) else Extent() for o in operators],
        }
        self._rows = {name: Products([e.coefficient for e in row], row, graph) for name, row in rows.items()}
        self._positions = _column([o.out_positions * (o.groups if o.groups > 1 else 1) for o in operators])
        self._long = _column([_long(o) for o in operators])
        self._product = _column([(o.weights or _is_product(o)) and not _long(o) for o in operators])
        self._depthwise = _column([o.depthwise for o in operators])
        # Attention is two products: queries with keys, and what comes of it with values.
        self._keys = _column([o.spatial[-1] if o.kind in ("attention",) else 0 for o in operators])
        # A recurrent layer is two products for every gate: what comes in, and its state.
        self._gates = _column([_GATES[str(o.attributes["cell"])] if o.kind == "recurrent" else 0 for o in operators])
        self._elementwise = _column([len(o.fused) + (o.kind in _ELEMENTWISE) for o in operators])

    def __call__(self, sizes: Sizes) -> Tensor:
        row = {name: products(sizes) for name, products in self._rows.items()}
        self._to(row["out"].device)
        per_position = torch.where(self._depthwise > 0, row["taps"], row["taps"] * row["into"]) * row["out"]
        per_position = torch.where(self._keys > 0, self._keys * (row["into"] + row["out"]), per_position)
        per_position = torch.where(self._gates > 0, self._gates * (row["into"] + row["out"]) * row["out"], per_position)
        length = (self._positions * row["share"]).clamp_min(2.0)
        per_position = torch.where(self._long > 0, row["out"] * torch.log2(length), self._product * per_position)
        per_position = per_position + self._elementwise * row["out"]
        return (per_position * self._positions * row["copies"]).sum()

    def _to(self, device: torch.device) -> None:
        if self._positions.device != device:
            for name in ("_positions", "_long", "_product", "_depthwise", "_keys", "_gates", "_elementwise"):
                setattr(self, name, getattr(self, name).to(device))


def _long(operator: Operator) -> bool:
    return operator.depthwise and math.prod(operator.kernel) >= LONG


def _is_product(operator: Operator) -> bool:
    return operator.kind in ("matmul", "attention", "recurrent")


def _column(values: list[int] | list[bool]) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)
