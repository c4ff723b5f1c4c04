"""Small networks with stages, data and a short search for where to pool."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.data import Data, from_loaders

QUICK = compressor.Training(search_epochs=1, finetune_epochs=1, batch_size=8, tune="none")


class Staged(nn.Module):
    """Images (B, 3, 16, 16) to four classes through a stem and five residual blocks at three resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        blocks = [Block(8, 8, 1), Block(8, 12, 2), Block(12, 12, 1), Block(12, 16, 2), Block(16, 16, 1)]
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.norm(self.stem(x)).relu()).mean((2, 3)))
        return out


class Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, out, 3, stride, 1), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1), nn.BatchNorm2d(out)
        self.short = nn.Conv2d(inside, out, 1, stride) if stride > 1 or inside != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.short(x)).relu()


def staged() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Staged()


X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def data_of(count: int = 48) -> Data:
    generator = torch.Generator().manual_seed(2)
    inputs, targets = torch.randn(count, 3, 16, 16, generator=generator), torch.arange(count) % 4
    inputs += 0.5 * targets.reshape(-1, 1, 1, 1)
    batches = DataLoader(TensorDataset(inputs, targets), batch_size=8)
    return from_loaders(batches, batches)


def search(budgets: dict[str, Any], *, model: nn.Module | None = None, **options: Any) -> compressor.Result:
    options = {"mixtures": 2, **options}
    return compressor.compress(
        model or staged(), X, budgets, data=data_of(), search="pooling", options=options, training=QUICK
    )
