"""Small networks whose costs have every shape: chains, residuals, depthwise, groups, concatenation, attention, ties."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """The shortcut makes one weight's input and output the same channels."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, width, 1, bias=False)
        self.inner = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.norm(self.inner(x)))
        return self.head(x.mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.expand = nn.Conv2d(2, width, 1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.project = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(nn.functional.relu6(self.depthwise(self.expand(x))))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 3, padding=1)
        self.both = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.both(torch.relu(torch.cat([self.a(x), self.b(x)], 1)))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1))


class Tied(nn.Module):
    """One weight read twice; counted once as a parameter and twice as work."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.hidden = nn.Linear(5, 5)
        self.again = nn.Linear(5, 5)
        self.again.weight = self.hidden.weight
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.again(torch.tanh(self.hidden(torch.tanh(self.first(x)))))))


class Attention(nn.Module):
    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(3, width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return self.head(self.norm(x).mean(1))


class InPlace(nn.Module):
    """Views and in-place operators share the memory they lie in."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 6 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.a(x), inplace=True)
        y = self.b(x)
        y += x
        return self.head(y.relu_().view(y.shape[0], -1))


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.Conv2d(5, 3, 1),
    )  # fmt: skip


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(8, 3, 1)
    )


def image() -> Tensor:
    return torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def vector() -> Tensor:
    return torch.randn(1, 3, generator=torch.Generator().manual_seed(0))


def tokens() -> Tensor:
    return torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "chain": (chain, image),
    "residual": (Residual, image),
    "depthwise": (Depthwise, image),
    "grouped": (grouped, image),
    "concatenated": (Concatenated, image),
    "tied": (Tied, vector),
    "attention": (Attention, tokens),
    "in place": (InPlace, image),
}
