"""The architecture block by block: widths, kernels and resolutions agree with the modules of the trimmed network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compressor.backbones.ccnn import CCNN, render
from compressor.backbones.ccnn_search import SearchableCCNN
from compressor.backbones.resnet_cifar import CifarResNet
from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices
from compressor.report import BlockShape
from compressor.report.block_table import outline
from compressor.trim import plan, trim_verified


def halved(graph: Graph) -> np.ndarray:
    """The first half of every group, at least one; of kernels the inner rings, which come last."""
    units = graph.all_units()
    for group in graph.groups:
        half = len(group) // 2
        units[group.units[:half] if group.kind == "kernel" else group.units[max(1, half) :]] = False
    return units


def rows_of(
    model: nn.Module, x: Tensor, gone: tuple[str, ...] = ()
) -> tuple[dict[str, BlockShape], nn.Module, list[BlockShape]]:
    graph = capture(model, x, kernels=True)
    gates = np.array([block.name not in gone for block in graph.blocks])
    result = trim_verified(model, graph, halved(graph), x, gates=gates)
    rows = outline(model, graph, result.architecture)
    return {row.name: row for row in rows}, result.model, rows


def test_resnet_blocks_projections_and_depth() -> None:
    model = CifarResNet(2).eval()
    rows, small, listed = rows_of(model, torch.randn(1, 3, 32, 32), gone=("layer3.1",))
    assert [row.name for row in listed] == [
        "conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "linear",
    ]  # fmt: skip
    first = rows["layer2.0"]
    assert not first.residual
    assert (first.width_before, first.kernel_before, first.resolution_before) == ([16, 32, 32], [3, 3], [16, 16])
    block = small.get_submodule("layer2.0")
    assert first.width_after == [block.conv1.in_channels, block.conv1.out_channels, block.conv2.out_channels]
    assert first.kernel_after == list(block.conv1.kernel_size)
    assert rows["layer2.1"].residual
    assert rows["layer3.1"].removed
    assert rows["layer3.1"].width_before == [64, 64, 64]
    assert rows["linear"].resolution_before == rows["linear"].kernel_before == []
    assert rows["linear"].width_before == [64, 10]


def test_the_triple_of_a_continuous_network() -> None:
    model = render(CCNN(2, 12, dims=1, in_channels=1, num_classes=3).eval(), (16,))
    rows, small, _ = rows_of(model, torch.randn(1, 1, 16))
    row = rows["blocks.0"]
    assert (row.width_before, row.kernel_before, row.resolution_before) == ([12, 12, 12], [17], [16])
    block = small.get_submodule("blocks.0")
    assert row.width_after == [block.conv.in_channels, block.mid.out_channels, block.out.out_channels]
    assert row.width_after[1] == 6
    assert row.kernel_after == list(block.conv.kernel_size)
    assert row.kernel_after[0] < 17


class Mixed(nn.Module):
    """Tokens, a grouped convolution, attention, a strided and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.grouped = nn.Conv1d(8, 16, 3, padding=1, groups=2)
        self.down = nn.Conv1d(16, 6, 4, stride=2, padding=1)
        self.up = nn.ConvTranspose1d(6, 5, 2, stride=2)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.grouped(x.transpose(1, 2)).relu()
        x = self.up(self.down(x).relu())
        out: Tensor = self.head(x.transpose(1, 2))
        return out


def test_layers_of_all_kinds() -> None:
    rows, small, listed = rows_of(Mixed().eval(), torch.randint(9, (1, 12)))
    assert rows["embedding"].width_before == [9, 8]
    assert rows["grouped"].width_before == [8, 16]
    assert rows["grouped"].width_after == [small.grouped.in_channels, small.grouped.out_channels]
    assert (rows["down"].resolution_before, rows["down"].kernel_before) == ([6], [4])
    assert rows["up"].width_before == [6, 5]
    assert rows["up"].width_after == [small.up.in_channels, small.up.out_channels]
    assert rows["head"].resolution_before == [12]
    attention = next(row for row in listed if row.residual)
    assert attention.width_before == [8, 24, 8]


def test_a_lowered_resolution() -> None:
    model, x = SearchableCCNN(2, 6, (12, 16), in_channels=1, num_classes=2).eval(), torch.randn(1, 1, 12, 16)
    graph = capture(model, x, kernels=True, resolution=True)
    units = graph.all_units()
    for group in graph.groups:
        if group.kind == "resolution" and group.name.startswith("blocks.1"):
            units[group.units[2:]] = False
    result = trim_verified(model, graph, units, x)
    rows = {row.name: row for row in outline(model, graph, result.architecture)}
    assert rows["blocks.0"].resolution_after == rows["blocks.0"].resolution_before == [12, 16]
    (entry,) = result.architecture.resolutions
    assert rows["blocks.1"].resolution_after == [inside for _, inside in entry.sizes]
    assert all(after < before for before, after in zip([12, 16], rows["blocks.1"].resolution_after, strict=True))
    assert rows["blocks.1"].width_before == [6, 6, 6]


def test_resolutions_follow_where_to_pool() -> None:
    model = CifarResNet(3).eval()
    graph = capture(model, torch.randn(1, 3, 32, 32))
    add_choices(model, graph, ["pooling"])
    (choice,) = graph.choices
    taken = [alternative.name for alternative in choice.alternatives].index("[2, 1, 7]")
    units = graph.all_units()
    units[choice.units] = False
    units[choice.units[taken]] = True
    rows = {row.name: row for row in outline(model, graph, plan(model, graph, units), units)}
    sides = {f"layer{stage}.{block}": None for stage in (1, 2, 3) for block in range(3)}
    assert [rows[name].resolution_before[0] for name in sides] == [32] * 3 + [16] * 3 + [8] * 3
    assert [rows[name].resolution_after[0] for name in sides] == [32, 16] + [8] * 7
