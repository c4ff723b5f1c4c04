"""Splits that lie in memory as tensors, with augmentation on whole batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.data.task import is_tokens
from compressor.errors import UsageError

_AUGMENT_STREAM = 0x9E3779B9  # keeps the augmentation's random numbers apart from the shuffle's


@dataclass(frozen=True)
class Normalise:
    """Scale to ``(x - mean) / std`` by channel, axis 1. Integer inputs are first brought to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, C, ...) of uint8 or float to float32."""
        shape = (1, -1) + (1,) * (inputs.dim() - 2)
        mean, std = torch.tensor(self.mean).view(shape), torch.tensor(self.std).view(shape)
        scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
        return inputs.float().sub_(mean * scale).div_(std * scale)


IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""As networks with published weights expect images."""


@dataclass(frozen=True)
class CropFlip:
    """Shift by up to ``padding`` pixels, black coming in at the edges, and mirror half of the images.

    One gather does both for a whole batch.
    """

    padding: int = 4
    flip: bool = True

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) to the same shape and type."""
        batch, channels, height, width = images.shape
        padded = F.pad(images, (self.padding,) * 4)
        offsets = torch.randint(2 * self.padding + 1, (2, batch, 1), generator=generator)
        rows = offsets[0] + torch.arange(height)
        columns = offsets[1] + torch.arange(width)
        if self.flip:
            mirrored = torch.rand(batch, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        samples = torch.arange(batch).view(-1, 1, 1, 1)
        return padded[samples, torch.arange(channels).view(1, -1, 1, 1), rows[:, None, :, None], columns[:, None, None]]


class TensorSplit:
    """Samples in memory; implements ``Split``.

    Args:
        inputs: (N, ...) of uint8, or of float taken as it is.
        targets: (N,) or (N, ...).
        indices: which samples belong to this split; None for all. Splits may share their tensors.
        normalise: applied to every batch, None for none.
        augment: applied to raw batches when augmentation is asked for, None for none.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        indices: Tensor | None = None,
        normalise: Normalise | None = None,
        augment: CropFlip | None = None,
    ) -> None:
        self._inputs = inputs
        self._targets = targets
        self._indices = torch.arange(len(inputs)) if indices is None else indices
        self._normalise = normalise
        self._augment = augment

    @property
    def targets(self) -> Tensor:
        """The targets of this split in stored order."""
        return self._targets[self._indices]

    labels = targets

    @property
    def sample_classes(self) -> Tensor | None:
        """The class of every sample; None if targets are none, or many for each sample."""
        return self.targets if self._targets.dim() == 1 and not self._targets.is_floating_point() else None

    def subset(self, positions: Tensor) -> TensorSplit:
        """The samples at these positions of the split, over the same tensors."""
        indices = self._indices[positions]
        return TensorSplit(
            self._inputs, self._targets, indices=indices, normalise=self._normalise, augment=self._augment
        )

    def __len__(self) -> int:
        return len(self._indices)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Split.batches``."""
        generator = augmentation_generator(shuffle_seed)
        for chosen in index_batches(len(self), batch_size, shuffle_seed, drop_last):
            indices = self._indices[chosen]
            inputs = self._inputs[indices]
            if augment and self._augment is not None:
                inputs = self._augment(inputs, generator)
            yield self._ready(inputs), self._targets[indices]

    def _ready(self, inputs: Tensor) -> Tensor:
        if self._normalise is not None:
            return self._normalise(inputs)
        return inputs if is_tokens(inputs) else inputs.float()


def augmentation_generator(shuffle_seed: int | None) -> torch.Generator:
    """What the augmentation of a pass draws from."""
    return torch.Generator().manual_seed((shuffle_seed or 0) ^ _AUGMENT_STREAM)


def index_batches(count: int, batch_size: int, shuffle_seed: int | None, drop_last: bool) -> Sequence[Tensor]:
    """Positions 0..count-1 in batches, shuffled by the seed if there is one."""
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, but got {batch_size}.")
    if shuffle_seed is None:
        order = torch.arange(count)
    else:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(shuffle_seed))
    batches = list(torch.split(order, batch_size))
    return batches[:-1] if drop_last and batches and len(batches[-1]) < batch_size else batches
