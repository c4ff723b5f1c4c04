"""Tracing: what one forward pass does, which channels live or die together, and what can be removed."""

from compressor.graph.capture import capture
from compressor.graph.graph import Graph

__all__ = ["Graph", "capture"]
