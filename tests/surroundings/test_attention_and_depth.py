"""Attention loses heads and widths and its attributes are mended; whole blocks go under every search method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.search import METHODS
from tests.search.search_models import NARROWING


class Attention(nn.Module):
    """Fused projections, numbers kept as attributes as most code does."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.inner_dim = width
        self.tokens = (4, 4)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, self.inner_dim)
        out: Tensor = self.proj(y)
        return out


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.hidden_dim = 2 * width
        self.up, self.down = nn.Linear(width, self.hidden_dim), nn.Linear(self.hidden_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        hidden = self.up(self.norm2(x)).view(-1, x.shape[1], self.hidden_dim)
        return x + self.down(hidden.relu())


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 24))
        self.blocks = nn.Sequential(*[Block(24, 4) for _ in range(3)])
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.blocks(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))
        out: Tensor = self.head(x[:, 0])
        return out


def test_attention_is_compressed_and_the_report_lists_the_attributes_that_changed() -> None:
    torch.manual_seed(0)
    model, x = Transformer().eval(), torch.randn(2, 3, 8, 8)
    result = compressor.compress(model, x, {"flops": "8%"}, options={"depth": False}, round_to=1)
    assert result.report.verification is not None
    assert result.report.verification.error <= 1e-9
    changed = {(c.module, c.attribute): (c.before, c.after) for c in result.report.attributes_changed}
    small: Any = result.model
    for i, block in enumerate(small.blocks):
        attention, name = block.attention, f"blocks.{i}.attention"
        assert attention.num_heads * attention.head_dim == attention.inner_dim == attention.proj.in_features < 24
        assert attention.qkv.out_features == 3 * attention.inner_dim
        assert changed[name, "inner_dim"] == (24, attention.inner_dim)
        assert changed[f"blocks.{i}", "hidden_dim"] == (48, block.up.out_features)
        assert (name, "num_heads") in changed or (name, "head_dim") in changed
        assert attention.tokens == (4, 4)
    assert small.patches.out_channels == small.head.in_features < 24
    assert small(x).shape == (2, 5)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*[Residual() for _ in range(6)])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


def without_blocks(method: str) -> tuple[compressor.Result, Tensor]:
    """Widths are held by ``round_to``, so half of the multiply-adds can only go with blocks."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 3, 8, 8), torch.randint(0, 5, (64,))
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    data = (loader, loader) if METHODS.get(method).trains else None
    options: dict[str, Any] = {"search_epochs": 2, "finetune_epochs": 0} if data is not None else {}
    if method == "dnarch":
        options["options"] = {"learn": ("depth",)}  # it would crop kernels, too
    budget = {"flops": "50%"}
    result = compressor.compress(Deep().eval(), x[:1], budget, search=method, round_to=8, data=data, **options)
    return result, x[:2]


@pytest.mark.parametrize("method", NARROWING)
def test_blocks_go_under_every_search_method(method: str) -> None:
    result, x = without_blocks(method)
    removed = result.report.blocks_removed
    assert len(removed) >= 3
    names = dict(result.model.named_modules())
    for name in removed:
        assert isinstance(names[name], nn.Identity)
        assert not [other for other in names if other.startswith(f"{name}.")]
        assert not [key for key in result.model.state_dict() if key.startswith(f"{name}.")]
    assert sum(isinstance(module, nn.Conv2d) for module in names.values()) == 1 + 2 * (6 - len(removed))
    assert result.model(x).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("method", NARROWING)
def test_blocks_are_gone_from_the_exported_graph(method: str, tmp_path: Path) -> None:
    result, _ = without_blocks(method)
    (path,) = result.export(tmp_path)
    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    left = 6 - len(result.report.blocks_removed)
    assert kinds.count("Conv") == 1 + 2 * left
    assert kinds.count("Add") == left
