"""Masks: the model as if units were removed."""

from compressor.masks.masking import Masking

__all__ = ["Masking"]
