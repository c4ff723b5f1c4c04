"""Masks: the model as if units were removed."""

from compressor.masks.masking import Given, Masking
from compressor.masks.recompute import Pass

__all__ = ["Given", "Masking", "Pass"]
