"""Latency on a target, from a table of measured operators, in milliseconds of one run.

Every operator's latency is interpolated in its channels in and out; slopes are those of the staircase's envelope
(``lut.surface.interpolate``), so that a search sees where widening costs and not only that it costs nothing at once.
Operators of a block count by its gate, and what an operator is under each alternative of a choice by the weight of that
alternative. What calibration found is added: a factor per class of operators, traffic of
weights and activations, and a fixed time per operator.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.costs.base import CostTerm, Products
from compressor.costs.sizes import Sizes
from compressor.errors import UsageError
from compressor.graph.graph import Graph
from compressor.latency.predict import CLASSES, Coefficients, Lookup, class_of, traffic
from compressor.latency.signatures import runs


class Latency(CostTerm):
    """Predicted milliseconds of one run.

    Args:
        lookup: the table's answers for this graph.
        coefficients: what calibration found.

    Attributes:
        factor: measured over predicted, as found on the device after a trim; 1 until then.
    """

    name = "latency"
    unit = "ms"

    def __init__(self, graph: Graph, lookup: Lookup | None = None, coefficients: Coefficients | None = None) -> None:
        if lookup is None:
            raise UsageError(
                "A latency budget needs a target to measure on; pass --target, for example --target onnxruntime-cpu."
            )
        super().__init__(graph)
        self.lookup = lookup
        self.factor = 1.0
        found = runs(graph)
        operators = [run.operator for run in found]
        self._of = torch.tensor([run.of for run in found], dtype=torch.int64)
        always = graph.n_units
        self._unit = torch.tensor([always if run.unit is None else run.unit for run in found], dtype=torch.int64)
        extents = [[getattr(o, side) for o in operators] for side in ("channels_in", "channels_out", "copies")]
        self._extents = [Products([e.coefficient for e in row], row, graph) for row in extents]
        self._taps = Products([o.taps.coefficient / o.taps.full for o in operators], [o.taps for o in operators], graph)
        least = [math.prod(o.cropped.kernel) / math.prod(o.kernel) if o.cropped else 0.0 for o in operators]
        self._least_taps = torch.tensor(least, dtype=torch.float64)
        self._classes = [class_of(o) for o in operators]
        self._traffic = torch.tensor([traffic(o) for o in operators], dtype=torch.float64).reshape(-1, 3)
        self.coefficients = coefficients or Coefficients()

    @property
    def coefficients(self) -> Coefficients:
        """What calibration found; setting it changes every prediction from then on."""
        return self._coefficients

    @coefficients.setter
    def coefficients(self, found: Coefficients) -> None:
        self._coefficients = found
        scales = {**dict.fromkeys(CLASSES, 1.0), **found.scales}
        self._scales = torch.tensor([scales[name] for name in self._classes], dtype=torch.float64)
        unsuited = [scales["ragged"] if name == "conv" else scales[name] for name in self._classes]
        self._ragged_scales = torch.tensor(unsuited, dtype=torch.float64)
        self.__dict__.pop("original", None)

    def __call__(self, sizes: Sizes) -> Tensor:
        parts = self._parts(sizes)
        found = self._coefficients
        scales = self._scales + (self._ragged_scales - self._scales) * parts[4]
        each = scales * parts[0] + found.weights_ms_per_mb * parts[1] + found.activations_ms_per_mb * parts[2]
        return self.factor * ((each + found.operator_ms) * parts[3]).sum()

    def features(self, sizes: Sizes) -> dict[str, float]:
        """What the coefficients multiply, for a hard choice: milliseconds per class, megabytes, operators."""
        with torch.no_grad():
            latency, weights, activations, copies, ragged = (part.numpy() for part in self._parts(sizes))
        found: dict[str, float] = dict.fromkeys(CLASSES, 0.0)
        for name, value, part in zip(self._classes, (latency * copies).tolist(), ragged.tolist(), strict=True):
            unsuited = value * part if name == "conv" else 0.0
            found[name] += value - unsuited
            found["ragged"] += unsuited
        found["weights_mb"] = float((weights * copies).sum())
        found["activations_mb"] = float((activations * copies).sum())
        found["operators"] = float(copies.sum())
        return found

    def by_operator(self, sizes: Sizes) -> list[tuple[str, str, float]]:
        """Place, kind and predicted milliseconds of every operator."""
        with torch.no_grad():
            parts = self._parts(sizes)
        values = self._scales * parts[0] * parts[3]
        each = values.new_zeros(len(self.graph.operators)).index_add(0, self._of, values).tolist()
        return [(o.place, o.kind, ms) for o, ms in zip(self.graph.operators, each, strict=True)]

    def _parts(self, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Per operator and alternative: ms from the table, megabytes of weights, of activations, how often it runs,
        raggedness."""
        device = sizes.units.device
        if device.type != "cpu":  # the table is on the CPU; gradients flow back through the copy
            sizes = Sizes(self.graph, sizes.units.cpu(), sizes.gates.cpu())
        into, out, copies = (product(sizes) for product in self._extents)
        copies = copies * torch.cat([sizes.units, sizes.units.new_ones(1)])[self._unit]
        latency, ragged = _Interpolate.apply(into, out, self.lookup)
        pair, per_in, per_out = self._traffic.unbind(1)
        if self.lookup.cropped is not None:  # in between, latency is taken to follow the number of taps
            taps = self._taps(sizes)
            least, _ = _Interpolate.apply(into, out, self.lookup.cropped)
            latency = least + (latency - least) * (taps - self._least_taps) / (1 - self._least_taps)
            pair = pair * taps
        return latency, pair * into * out, per_in * into + per_out * out, copies, ragged


class _Interpolate(torch.autograd.Function):
    """``lut`` tables as a differentiable function of channel counts."""

    @staticmethod
    def forward(ctx: Any, channels_in: Tensor, channels_out: Tensor, lookup: Lookup) -> tuple[Tensor, Tensor]:
        found = lookup(np.asarray(channels_in.detach()), np.asarray(channels_out.detach()))
        ctx.save_for_backward(torch.from_numpy(found[:, 1].copy()), torch.from_numpy(found[:, 2].copy()))
        ragged = torch.from_numpy(found[:, 3].copy())
        ctx.mark_non_differentiable(ragged)
        return torch.from_numpy(found[:, 0].copy()), ragged

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        slope_in, slope_out = ctx.saved_tensors
        return gradients[0] * slope_in, gradients[0] * slope_out, None
