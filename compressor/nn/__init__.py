"""Modules that a compressed network may hold, and tools on modules."""

from compressor.nn.aggregated.candidates import Candidate
from compressor.nn.aggregated.modules import AggConv1d, AggConv2d

__all__ = ["AggConv1d", "AggConv2d", "Candidate"]
