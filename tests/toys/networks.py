"""A network with activations to choose and an operator that PyTorch does not have; images (B, 1, 8, 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.toys.rule import twice


class ToyNet(nn.Module):
    """Ten classes of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()
        self.body, self.second = nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = twice(self.first(self.stem(x)))
        x = self.second(self.body(x))
        return self.head(x.mean((2, 3)))


def make() -> nn.Module:
    torch.manual_seed(0)
    return ToyNet()
