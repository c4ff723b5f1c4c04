"""Small networks of different kinds, for contract suites: a plain one, and ones with branches, with heads and with
grouped convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 12, 3, padding=1), nn.Linear(12, 5)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 12, 1))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = x + branch(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class _Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 5)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.stem(x).flatten(2).transpose(1, 2)).mean(1))
        return out


def _plain() -> nn.Module:
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))


def _separable() -> nn.Module:
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 24, 1)]
    return nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))


#: By name; images (B, 3, 8, 8) to (B, 5).
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": _plain,
    "residual": _Residual,
    "heads": _Heads,
    "separable": _separable,
}


def network(name: str) -> nn.Module:
    """A fresh one, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETWORKS[name]()


def images(count: int = 2) -> Tensor:
    """Random images, the same at every call."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def batches(count: int = 2, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Random images with random classes."""
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(size, 3, 8, 8, generator=generator), torch.randint(0, 5, (size,), generator=generator))
        for _ in range(count)
    ]
