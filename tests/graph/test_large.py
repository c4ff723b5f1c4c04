"""Large networks: deep ones trace, and wide ones trace without their weights ever existing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.costs import build
from compressor.graph import capture


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


class Block(nn.Module):
    """A transformer's block with a fused projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + self.out(attended)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def transformer(width: int, depth: int, heads: int, words: int) -> nn.Module:
    blocks = [Block(width, heads) for _ in range(depth)]
    return nn.Sequential(nn.Embedding(words, width), *blocks, nn.LayerNorm(width), nn.Linear(width, words))


def test_a_thousand_layers_in_a_row() -> None:
    layers: list[nn.Module] = []
    for _ in range(500):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    graph = capture(nn.Sequential(nn.Conv2d(3, 8, 1), *layers, nn.Conv2d(8, 2, 1)), torch.zeros(1, 3, 8, 8))
    assert graph.on_meta
    assert [len(group) for group in graph.groups] == [8] * 501


def test_a_thousand_layers_with_residuals() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), *[Residual(8) for _ in range(500)], nn.Conv2d(8, 2, 1))
    graph = capture(model, torch.zeros(1, 3, 8, 8))
    assert len(graph.groups) == 501
    assert len(graph.blocks) == 500
    assert build("params", graph).original == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("width", "depth", "heads", "words"),
    [(64, 4, 4, 100), pytest.param(1792, 24, 14, 32_000, marks=pytest.mark.slow)],
)
def test_a_transformer_without_weights(width: int, depth: int, heads: int, words: int) -> None:
    """The larger has a billion parameters, which would take four gigabytes."""
    with torch.device("meta"):
        model = transformer(width, depth, heads, words)
    graph = capture(model, torch.zeros(1, 16, dtype=torch.long))
    assert graph.on_meta
    assert all(p.is_meta for p in model.parameters())
    assert build("params", graph).original == sum(p.numel() for p in model.parameters())
    hidden = [group for group in graph.groups if len(group) == 4 * width]
    assert len(hidden) == depth
