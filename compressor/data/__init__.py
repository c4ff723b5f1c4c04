"""Data sets: embedded digits, common formats on disk, and the user's own tensors and loaders."""

from __future__ import annotations

from compressor.data.arrays import from_tensors
from compressor.data.base import Data, Split
from compressor.data.load import load_data
from compressor.data.loaders import from_loaders
from compressor.data.memory import CropFlip, Normalise, TensorSplit
from compressor.data.subsampled import Subsampled

__all__ = [
    "CropFlip",
    "Data",
    "Normalise",
    "Split",
    "Subsampled",
    "TensorSplit",
    "from_loaders",
    "from_tensors",
    "load_data",
]
