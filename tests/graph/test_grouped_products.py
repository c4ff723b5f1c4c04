"""Mixtures of experts whose matrices are one tensor: products in groups are traced, counted, verified and run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compressor
from compressor.costs import build
from compressor.graph import capture
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import trim_verified
from compressor.trim.grouped import grouped_mm

pytestmark = pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="a torch without grouped products")
D, WIDTH, EXPERTS, TOKENS = 32, 48, 4, 24


class Experts(nn.Module):
    """Tokens of ``D`` features through ``EXPERTS`` experts of ``WIDTH``, of which each token takes ``top``."""

    def __init__(self, form: str, top: int = 1) -> None:
        super().__init__()
        self.form, self.top = form, top
        self.stem, self.head = nn.Linear(D, D), nn.Linear(D, 8)
        self.router = nn.Linear(D, EXPERTS)
        up = 2 * WIDTH if "gated" in form else WIDTH
        swap = "transposed" in form
        self.up = nn.Parameter(torch.randn(EXPERTS, *((up, D) if swap else (D, up))) / 6)
        self.down = nn.Parameter(torch.randn(EXPERTS, *((D, WIDTH) if swap else (WIDTH, D))) / 6)

    def product(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        if "transposed" in self.form:
            weight = weight.transpose(-2, -1)
        run = torch._grouped_mm if "private" in self.form else F.grouped_mm
        return run(x, weight, offs=ends)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        scores, chosen = self.router(x).softmax(-1).topk(self.top, dim=-1)
        expert = chosen.reshape(-1)
        order = torch.argsort(expert)
        ends = torch.bincount(expert, minlength=EXPERTS).cumsum(0).to(torch.int32)
        h = self.product(x[order // self.top], self.up, ends)
        if "gated" in self.form:
            gate, h = h.chunk(2, dim=-1)
            h = F.silu(gate) * h
        y = self.product(F.relu(h), self.down, ends) * scores.reshape(-1)[order, None]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return self.head(x + y[back].view(x.shape[0], self.top, -1).sum(1))


FORMS = ["plain", "transposed", "private", "gated", "gated transposed"]


@pytest.mark.parametrize("top", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_experts_lose_channels_and_run(form: str, top: int) -> None:
    torch.manual_seed(0)
    model, x = Experts(form, top).eval(), torch.randn(TOKENS, D)
    graph = capture(model, x)
    names = {(name, d): axis is not None for name, p in graph.parameters.items() for d, axis in enumerate(p.axes)}
    assert names["up", 1]
    assert names["up", 2]
    assert names["down", 1]
    assert names["down", 2]
    assert not names["up", 0]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        units = graph.all_units()
        for group in graph.groups:
            units[group.units[rng.permutation(len(group))[: len(group) // 2]]] = False
        result = trim_verified(model, graph, units, x)
        assert not result.refused, result.reason
        assert result.check.error <= 1e-9  # in float64: the kernel has no such
        result.model(torch.randn(TOKENS + 3, D))  # the kernel takes the widths


@pytest.mark.parametrize("form", FORMS)
def test_their_multiply_adds_are_counted(form: str) -> None:
    model, x = Experts(form, 2).eval(), torch.randn(TOKENS, D)
    graph = capture(model, x)
    flops = build("flops", graph)
    per_token = D * D + D * EXPERTS + D * 8 + 2 * (D * WIDTH * (2 if "gated" in form else 1) + WIDTH * D)
    assert float(flops.original) == per_token
    group = next(
        g for g in graph.groups if any(name == "down" and d == 1 + ("transposed" in form) for name, d in g.members)
    )
    units = graph.all_units()
    units[group.units[: len(group) // 2]] = False
    saved = float(flops.original) - float(flops(hard_sizes(graph, units, None)))
    assert saved == D * WIDTH * (2 if "gated" in form else 1) + WIDTH * D


def test_compress_reaches_half() -> None:
    torch.manual_seed(0)
    result = compressor.compress(
        Experts("gated"), torch.randn(TOKENS, D), {"flops": "50%"}, search="oneshot", round_to=1
    )
    assert result.report.budgets[0].reached <= result.report.budgets[0].limit
    assert result.model.up.shape[1] % 8 == 0
    assert result.model.down.shape[1] % 8 == 0


def _shapes(kind: str) -> tuple[Any, ...]:
    a = (3, 8, 16) if kind in ("3d 3d", "3d 2d") else (24, 16) if kind == "2d 3d" else (8, 24)
    b = (3, 16, 32) if kind in ("3d 3d", "2d 3d") else (16, 24) if kind == "3d 2d" else (24, 32)
    return a, b, None if kind == "3d 3d" else torch.tensor([8, 8, 24], dtype=torch.int32)


@pytest.mark.parametrize("kind", ["2d 3d", "3d 2d", "2d 2d", "3d 3d"])
def test_the_product_in_any_precision_is_the_kernels(kind: str) -> None:
    torch.manual_seed(0)
    a_shape, b_shape, offs = _shapes(kind)
    a, b = torch.randn(a_shape), torch.randn(b_shape)
    torch.testing.assert_close(grouped_mm(a, b, offs), F.grouped_mm(a, b, offs=offs), rtol=1e-4, atol=1e-4)
    assert grouped_mm(a.double(), b.double(), offs).dtype is torch.float64


def test_batches_of_matrices_may_lose_any_axis() -> None:
    class Batched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 32), nn.Linear(16, 4)
            self.w = nn.Parameter(torch.randn(6, 32, 16))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.grouped_mm(self.a(x), self.w))

    torch.manual_seed(0)
    model, x = Batched().eval(), torch.randn(6, 8, 8)
    graph = capture(model, x, batch_axis=None)
    units = graph.all_units()
    for group in graph.groups:
        units[group.units[::2]] = False
    result = trim_verified(model, graph, units, x)
    assert not result.refused
    assert result.model.w.shape[1:] == (16, 8)
