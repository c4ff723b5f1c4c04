"""Handwritten digits bundled with scikit-learn: 1,797 gray images of 8 x 8 pixels, ten classes; nothing to download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (the test part).
"""

from __future__ import annotations

import torch

from compressor.data.arrays import from_tensors
from compressor.data.base import Data
from compressor.data.holdout import stratified_holdout
from compressor.data.memory import Normalise

_LEVELS = 16  # pixels are counts of set dots in 4 x 4 cells
_TEST_FRACTION = 0.2


def load(argument: str) -> Data:
    """The digits as (1, 8, 8), a fifth of them for testing. ``argument`` is not used."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div_(_LEVELS)[:, None]
    targets = torch.from_numpy(bunch.target).long()
    train, test = stratified_holdout(targets, _TEST_FRACTION)
    normalise = Normalise((round(float(images[train].mean()), 4),), (round(float(images[train].std()), 4),))
    return from_tensors(
        (images[train], targets[train]),
        test=(images[test], targets[test]),
        name="digits",
        num_classes=10,
        normalise=normalise,
    )
