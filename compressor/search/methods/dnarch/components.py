"""The masks that DNArch gives a network: which rows of what there are, by component."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from compressor.arrays import BoolArray, FloatArray, IntArray
from compressor.graph.graph import Graph
from compressor.graph.groups import Group
from compressor.masks.ordered import FrequencyRows, KernelRows, Rows, TrainedKernels
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.least_savings import least_cuts


def component_masks(
    projector: Projector,
    config: DnarchConfig,
    scores: tuple[FloatArray, FloatArray],
    device: torch.device,
    computed: bool,
) -> tuple[dict[str, list[Group]], tuple[Rows, Rows, KernelRows, FrequencyRows]]:
    """The groups that are learned, by kind, and the masks over width, depth, kernels and resolution.

    What a model does not have, or is not to learn, has no rows.

    Args:
        scores: importance of every unit, shape (n_units,), and of every block, shape (n_blocks,).
        computed: whether kernels are computed by a network (``compressor.nn.generated``).

    Raises:
        UsageError: a component to learn that the model does not have.
    """
    graph = projector.graph
    components = config.components(graph)
    free_to_go = projector.smallest < projector.most
    groups = [g for g in graph.groups if g.component in components and free_to_go[g.index]]
    free = {kind: [g for g in groups if g.kind == kind] for kind in ("channels", "kernel", "resolution")}
    (width_tau, depth_tau), share = config.taus, 1 / config.grow
    wide = [_ordered(g.units, scores[0]) for g in free["channels"]]
    least = [projector.wanted.least.get(g.index, 0) for g in free["channels"]]
    width = Rows(graph.n_units, wide, width_tau, device, share, least=least, gone=np.flatnonzero(~projector.start[:-1]))
    blocks = _block_rows(graph, projector.removable, config.depth_over) if "depth" in components else []
    depth = Rows(len(graph.blocks), [_ordered(row, scores[1]) for row in blocks], depth_tau, device, share)
    samples = {int(a.factors[-1, 0]): len(a) for r in graph.resolutions for a in r.axes}
    bands = [g.units for g in free["resolution"]]
    lengths = [samples[int(units[-1])] for units in bands]
    cuts = least_cuts(graph, free["resolution"], [c.term for c in projector.constraints])
    resolution = FrequencyRows(graph.n_units, bands, lengths, cuts, config.resolution_tau, device)
    rings = [_rings(graph, g) for g in free["kernel"]]
    shape = graph.n_units, [row for row, _ in rings], [taps for _, taps in rings], device
    if computed:
        kernel = KernelRows(*shape, resolution, _within(graph, free["kernel"], free["resolution"]))
    else:
        kernel = TrainedKernels(*shape)
    return free, (width, depth, kernel, resolution)


def _ordered(things: IntArray, scores: FloatArray) -> IntArray:
    """By falling importance; ties in the order they stand."""
    return things[np.argsort(-scores[things], kind="stable")]


def _rings(graph: Graph, group: Group) -> tuple[IntArray, int]:
    """The rings of a kernel axis from the inside outwards, and the number of its taps."""
    name, d = group.members[0]
    axis = graph.parameters[name].axes[d]
    units = axis.factors[len(axis) // 2 :, 0] if axis is not None else group.units
    return units[units < graph.n_units], len(axis) if axis is not None else 0


def _within(graph: Graph, kernels: Sequence[Group], resolutions: Sequence[Group]) -> list[int]:
    """For each kernel axis, which of ``resolutions`` its samples follow; -1 if none does."""
    place = {int(group.units[-1]): row for row, group in enumerate(resolutions)}
    axes = {
        (name, 2 + d): place.get(int(axis.factors[-1, 0]), -1)
        for found in graph.resolutions
        for name in found.kernels
        for d, axis in enumerate(found.axes)
    }
    return [axes.get(group.members[0], -1) for group in kernels]


def _block_rows(graph: Graph, removable: BoolArray, over: str) -> list[IntArray]:
    """The removable blocks, in rows. Blocks whose last parameters have the same output axis are on one stream."""
    rows: dict[object, list[int]] = {}
    for block in graph.blocks:
        if removable[block.index]:
            axis = next((graph.parameters[name].axes[0] for name in block.gated if graph.parameters[name].axes), None)
            stream = axis.index if axis is not None else block.name.rpartition(".")[0]
            rows.setdefault(stream if over == "stage" else "network", []).append(block.index)
    return [np.array(row, dtype=np.int64) for row in rows.values()]
