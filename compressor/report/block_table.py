"""The architecture block by block, as papers print it: kernel size, resolution and widths, before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from compressor.architecture.architecture import Architecture
from compressor.arrays import UnitMask
from compressor.graph import Graph
from compressor.graph.graph import Parameter
from compressor.graph.operators import Operator
from compressor.report.structure import BlockShape


@dataclass(frozen=True)
class _Layer:
    """One layer with weights; every pair is (before, after)."""

    name: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    kernel: tuple[list[int], list[int]]
    resolution: tuple[list[int], list[int]]
    depthwise: bool


def outline(
    model: nn.Module, graph: Graph, architecture: Architecture, units: UnitMask | None = None
) -> list[BlockShape]:
    """One row per residual block, and one per layer outside of blocks, in the order of the module tree.

    A block's widths are the channels that go into its first layer and those that every layer after it gives: for a
    CCNN's block N_in, N_mid and N_out. Depthwise layers change none; layers beside the others (a projection on the
    shortcut) are left out. Its kernel is the largest of its layers'. ``units`` says which alternatives of choices were
    taken; without it resolutions are those of the original.
    """
    modules = dict(model.named_modules())
    counted = {product.place for product in graph.products}
    at: dict[str, list[Operator]] = {}
    for operator in graph.operators:
        if operator.weights:
            at.setdefault(operator.place, []).append(operator)
    whole = graph.all_units()
    operators = {
        place: (_running(found, whole), _running(found, whole if units is None else units))
        for place, found in at.items()
    }
    rows: dict[str, list[_Layer]] = {}
    owners = _owners(graph, modules)
    for parameter in graph.parameters.values():
        place, _, attribute = parameter.name.rpartition(".")
        known = place in counted or isinstance(modules.get(place), nn.Embedding | nn.Linear)
        if parameter.is_buffer or not parameter.reached or not attribute.endswith("weight") or not known:
            continue
        if len(parameter.shape) > 1:
            layer = _layer(parameter, place, modules, operators.get(place, (None, None)), architecture)
            rows.setdefault(owners(parameter.name), []).append(layer)
    residual = {block.name for block in graph.blocks}
    return [_row(name, layers, architecture, name in residual) for name, layers in rows.items()]


def _owners(graph: Graph, modules: Mapping[str, nn.Module]) -> Callable[[str], str]:
    """A function from a parameter's name to its row: the innermost block, or a module of the same class as one."""
    by_parameter = {
        name: block.name
        for block in sorted(graph.blocks, key=lambda block: len(block.inside))
        for name in block.parameters
    }
    own = (type(modules[block.name]) for block in graph.blocks if block.name in modules)
    alike = {kind for kind in own if not kind.__module__.startswith("torch.nn")}

    def owner(name: str) -> str:
        if name in by_parameter:
            return by_parameter[name]
        place = name.rpartition(".")[0]
        parts = place.split(".")
        around = (".".join(parts[:i]) for i in range(1, len(parts) + 1))
        return next((outer for outer in around if type(modules.get(outer)) in alike), place)

    return owner


def _layer(
    parameter: Parameter,
    place: str,
    modules: Mapping[str, nn.Module],
    operator: tuple[Operator | None, Operator | None],
    architecture: Architecture,
) -> _Layer:
    name, shape = parameter.name, parameter.shape

    def both(axis: int) -> tuple[int, int]:
        return shape[axis], len(architecture.kept(name, axis))

    module = modules.get(place)
    groups = int(getattr(module, "groups", 1))
    backward = isinstance(module, nn.Embedding | _ConvTransposeNd)  # their weights have the inputs first
    out_axis, in_axis = (1, 0) if backward else (0, 1)
    outputs, inputs = both(out_axis), both(in_axis)
    depthwise = groups > 1 and groups == shape[0] and shape[1] == 1
    if depthwise:
        inputs = outputs
    elif groups > 1 and not backward:
        after = architecture.attributes.get(place, {}).get("groups", groups)
        inputs = (inputs[0] * groups, inputs[1] * after)
    axes = range(2, len(shape))
    kernel = [shape[axis] for axis in axes], [len(architecture.kept(name, axis)) for axis in axes]
    return _Layer(place, inputs, outputs, kernel, (_resolution(operator[0]), _resolution(operator[1])), depthwise)


def _running(operators: list[Operator], units: UnitMask) -> Operator | None:
    """That of a place which runs under the alternatives that were taken: with where to pool there is one for each."""
    return next((o for o in operators if all(units[axis.factors].any() for axis in o.copies.axes)), None)


def _resolution(operator: Operator | None) -> list[int]:
    """Spatial sizes of an operator's output, empty where there is one position or they are not known."""
    if operator is None or operator.out_positions == 1:
        return []
    stride = operator.stride or (1,) * len(operator.spatial)
    found = [-(-size // step) for size, step in zip(operator.spatial, stride, strict=True)]
    return found if math.prod(found) == operator.out_positions else []


def _row(name: str, layers: list[_Layer], architecture: Architecture, residual: bool) -> BlockShape:
    chain = [layers[0]]
    for layer in layers[1:]:
        read, given = (layer.outputs if layer.depthwise else layer.inputs)[0], chain[-1].outputs[0]
        if read == given or 3 * read == given:  # queries, keys and values in one
            chain.append(layer)
    widths = [layers[0].inputs, *(layer.outputs for layer in chain if not layer.depthwise)]
    largest = max(layers, key=lambda layer: math.prod(layer.kernel[0]) if layer.kernel[0] else 0)
    removed = all(not layer.outputs[1] for layer in layers)
    before, after = next((layer.resolution for layer in reversed(chain) if layer.resolution[0]), ([], []))
    inside = {entry.block: [size for _, size in entry.sizes] for entry in architecture.resolutions}
    return BlockShape(
        name=name,
        kernel_before=largest.kernel[0],
        kernel_after=[] if removed else largest.kernel[1],
        resolution_before=before,
        resolution_after=[] if removed else inside.get(name, after),
        width_before=[whole for whole, _ in widths],
        width_after=[] if removed else [kept for _, kept in widths],
        residual=residual,
    )
