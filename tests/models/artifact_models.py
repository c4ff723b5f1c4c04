"""A network with what artefacts stumble over, and factories for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Convolution with normalisation, tied linear weights, a view of a buffer, a buffer that is not saved."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.one = nn.Linear(width, width)
        self.two = nn.Linear(width, width)
        self.two.weight = self.one.weight
        self.head = nn.Linear(width, 4)
        self.register_buffer("scale", torch.ones(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x))).mean((2, 3)) * self.scale
        return self.head(self.two(self.one(x)))


class Other(nn.Module):
    """Something else."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def make_net(num_classes: int | None = None) -> nn.Module:
    """A factory for ``pkg.module:factory``."""
    return Net()
