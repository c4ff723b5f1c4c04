"""Small networks and data for tests of search methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.costs import build
from compressor.graph import Graph, capture
from compressor.search import METHODS, get_method
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint

#: Methods that make layers narrower, for one budget at a time.
NARROWING = [
    name for name in METHODS.names() if "width" in get_method(name).config().decides and not get_method(name).points
]


class Split:
    """Images whose class shows in their mean."""

    def __init__(self, count: int, seed: int = 0) -> None:
        source = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(4, (count,), generator=source)
        self.inputs = torch.randn(count, 3, 8, 8, generator=source) + self.targets[:, None, None, None].float()

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self))
        if shuffle_seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(shuffle_seed))
        for index in order.split(batch_size):
            yield self.inputs[index], self.targets[index]


@dataclass
class Splits:
    train: Split
    val: Split


class Residual(nn.Module):
    """``x + branch(x)`` with a hidden width of its own."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))


class Plain(nn.Module):
    """Two convolutions and a linear layer; no block can go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.conv2(torch.relu(self.bn(self.conv1(x))))).mean((2, 3)))
        return y


class Attention(nn.Module):
    """Layer norms and attention: arithmetic across channels, and channels that only meet in products."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 2, stride=2)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        q, k, v = (t.unflatten(2, (4, 4)).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(16, dim=2))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        x = x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x))))
        y: Tensor = self.head(x.mean(1))
        return y


def residual(seed: int = 0) -> nn.Sequential:
    """Three residual blocks between two convolutions."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        Residual(16, 24),
        Residual(16, 24),
        Residual(16, 24),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def plain(seed: int = 0) -> Plain:
    torch.manual_seed(seed)
    return Plain()


def attention(seed: int = 0) -> Attention:
    torch.manual_seed(seed)
    return Attention()


EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
NETWORKS = {"residual": residual, "plain": plain, "attention": attention}


def data(count: int = 96) -> Splits:
    return Splits(Split(count), Split(32, seed=1))


def context(
    model: nn.Module, shares: dict[str, float], *, kernels: bool = False, resolution: bool = False, **rest: object
) -> SearchContext:
    """A context with budgets as shares of the original costs."""
    graph = capture(model, EXAMPLE, kernels=kernels, resolution=resolution)
    terms = {name: build(name, graph) for name in shares}
    constraints = [Constraint(terms[name], share * terms[name].original) for name, share in shares.items()]
    return SearchContext(model, graph, constraints, **{"data": data(), **rest})  # type: ignore[arg-type]


def trace(model: nn.Module) -> Graph:
    return capture(model, EXAMPLE)
