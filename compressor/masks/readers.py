"""Layers that read channels along one axis of their weight: linear layers and convolutions in one group."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compressor.arrays import IntArray
from compressor.graph.axis import Axis
from compressor.graph.graph import Graph


def read_by_modules(modules: Mapping[str, nn.Module], graph: Graph) -> dict[str, IntArray]:
    """By name of a layer, the units of each channel it reads, shape (channels, factors), padded with ``n_units``."""
    stored = [(mask.parameter.rpartition("."), dict[int, Axis | None](mask.axes)) for mask in graph.masks]
    axes = {name: found for (name, _, tensor), found in stored if tensor == "weight"}
    axes |= {each.place: dict(enumerate(each.axes)) for each in graph.computed if each.argument in (1, "weight")}
    read: dict[str, IntArray] = {}
    for name, along in axes.items():
        module = modules.get(name)
        if isinstance(module, nn.Linear | _ConvNd) and getattr(module, "groups", 1) == 1:
            axis = along.get(0 if isinstance(module, _ConvTransposeNd) else 1)
            if axis is not None and (axis.factors < graph.n_units).any():
                read[name] = axis.factors
    return read


def channels_axis(module: nn.Module, dimensions: int) -> int:
    """Along which axis of its input such a layer reads channels."""
    return dimensions - 1 if isinstance(module, nn.Linear) else 1
