"""A split of random images and small models, for tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class RandomSplit:
    """Images whose class shows in their mean, so that there is something to learn. ``augment`` flips at random."""

    def __init__(self, count: int, classes: int = 4, size: int = 8, seed: int = 0) -> None:
        source = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(classes, (count,), generator=source)
        noise = torch.randn(count, 3, size, size, generator=source)
        self.inputs = noise + self.targets[:, None, None, None].float() - classes / 2

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        source = torch.Generator().manual_seed(shuffle_seed or 0)
        count = len(self)
        order = torch.arange(count) if shuffle_seed is None else torch.randperm(count, generator=source)
        for start in range(0, count - batch_size + 1 if drop_last else count, batch_size):
            index = order[start : start + batch_size]
            inputs = self.inputs[index]
            if augment:
                flip = torch.rand(len(index), generator=source) < 0.5
                inputs = torch.where(flip[:, None, None, None], inputs.flip(3), inputs)
            yield inputs, self.targets[index]


@dataclass
class TinyData:
    train: RandomSplit
    val: RandomSplit


def tiny_data(count: int = 80) -> TinyData:
    return TinyData(RandomSplit(count), RandomSplit(40, seed=1))


def tiny_model(seed: int = 0, classes: int = 4, dropout: float = 0.2) -> nn.Sequential:
    """Convolution, BatchNorm, dropout, a linear layer: every kind of state that a resumed run must find again."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        )


def fingerprint(model: nn.Module) -> dict[str, bytes]:
    """The exact bits of every parameter and buffer."""
    return {name: tensor.detach().numpy().tobytes() for name, tensor in model.state_dict().items()}
