"""Smaller data sets for short runs, with a test split that is large enough to tell networks apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from compressor.data import Data, Split
from compressor.data.memory import CropFlip, TensorSplit


def fewer(data: Data, images: int, tested: int = 15_000) -> Data:
    """The first images of the training split; of the others, which nothing is trained on, the last are the test split."""
    train: Any = data.train
    return replace(
        data,
        train=train.subset(torch.arange(images)),
        test=train.subset(torch.arange(len(train) - tested, len(train))),
    )


def smaller(data: Data, pool: int, shift: int = 2) -> Data:
    """Images averaged over ``pool`` pixels along each axis; in training shifted by up to ``shift`` and mirrored."""
    found: dict[str, Any] = {}
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        assert split is not None
        parts = [(nn.functional.avg_pool2d(x, pool), y) for x, y in split.batches(500)]
        inputs, targets = (torch.cat(each) for each in zip(*parts, strict=True))
        found[name] = TensorSplit(inputs, targets, augment=CropFlip(shift) if name == "train" else None)
    return replace(data, **found, example_inputs=nn.functional.avg_pool2d(data.example_inputs, pool))


def held_out(data: Data) -> Split:
    """Validation and test samples together, where nothing is chosen by the former."""
    splits = [split for split in (data.val, data.test) if split is not None]
    inputs, targets = zip(*(batch for split in splits for batch in split.batches(500)), strict=True)
    return TensorSplit(torch.cat(inputs), torch.cat(targets))
