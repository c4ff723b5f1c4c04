"""Small networks by name for other tasks than images and classes: signals, tokens, fields."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.backbones.ccnn_search import SearchableCCNN


class Sequence(nn.Module):
    """Two residual blocks over (B, C, L), or over tokens (B, L) with an embedding."""

    def __init__(self, num_classes: int, in_channels: int = 1, vocabulary: int | None = None) -> None:
        super().__init__()
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, 8)
        self.stem = nn.Conv1d(8 if vocabulary else in_channels, 12, 5, padding=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv1d(12, 16, 5, padding=2), nn.BatchNorm1d(16), nn.GELU(), nn.Conv1d(16, 12, 1))
            for _ in range(2)
        )
        self.head = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.embedding is not None:
            x = self.embedding(x).transpose(1, 2)
        x = self.stem(x).relu()
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.head(x.mean(2))
        return out


def sequence(num_classes: int, in_channels: int = 1, vocabulary: int | None = None) -> nn.Module:
    return Sequence(num_classes, in_channels, vocabulary)


def field(num_classes: int, in_channels: int, dense: bool) -> nn.Module:
    assert dense
    return nn.Sequential(
        nn.Conv2d(in_channels, 12, 3, padding=1), nn.GELU(), nn.Conv2d(12, 12, 3, padding=1), nn.GELU(),
        nn.Conv2d(12, num_classes, 3, padding=1),
    )  # fmt: skip


def wrong_field(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 2 * num_classes, 3))


def pairs() -> dict[str, object]:
    """A data factory: tokens that a loader gives."""
    tokens = torch.randint(5, (40, 12), generator=torch.Generator().manual_seed(0))
    batches = [(tokens[i : i + 8], tokens[i : i + 8, 0] % 3) for i in range(0, 40, 8)]
    return {"train": batches, "val": batches[:2], "num_classes": 3, "vocabulary": 5}


def growing(num_classes: int, in_channels: int, grow: int = 1) -> nn.Module:
    """A continuous network for 16 samples, ``grow`` times as wide and as deep."""
    return SearchableCCNN(2 * grow, 8 * grow, (16,), num_classes=num_classes, in_channels=in_channels)
