"""Smaller data sets for short runs, with a test split that is large enough to tell networks apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from compressor.data import Data


def fewer(data: Data, images: int, tested: int = 15_000) -> Data:
    """The first images of the training split; of the others, which nothing is trained on, the last are the test split."""
    train: Any = data.train
    return replace(
        data,
        train=train.subset(torch.arange(images)),
        test=train.subset(torch.arange(len(train) - tested, len(train))),
    )
