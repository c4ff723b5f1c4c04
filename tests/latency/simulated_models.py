"""Small networks, and how to time them on the simulated device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.latency.target import TargetSettings
from profilers.runtimes.simulated import SimulatedDevice


class Residual(nn.Module):
    """``relu(x + b(relu(norm(a(x)))))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.b = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.b(torch.relu(self.norm(self.a(x)))))


def network(seed: int = 0) -> nn.Module:
    """Two residual stages on 12x12 images."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        Residual(32),
        nn.Conv2d(32, 48, 3, 2, 1),
        Residual(48),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    ).eval()


def example() -> Tensor:
    return torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def simulated(folder: Path, device: SimulatedDevice | None = None, subnets: int = 6) -> TargetSettings:
    """The simulated device with a table in ``folder``."""
    return TargetSettings(
        device or SimulatedDevice(), lut=folder / "lut.sqlite", threads=1, subnets=subnets, max_points=10
    )
