"""Widths that runtimes have kernels for: even ones.

Runtimes compute channels in blocks of 8 or 16 (vector registers, tensor cores). At other widths they pad, reorder or
take slower kernels, and a network of half the multiply-adds can take longer than the whole one
(``benchmarks/latency/even_widths.md``).
"""

from __future__ import annotations

from compressor.graph.graph import Graph

MOST = 16
SHARE = 8  # a step is at most this part of a width: a coarser one would decide more than importance does


def even_widths(graph: Graph) -> dict[str, int]:
    """For every group of channels by name, what its width had better be a multiple of: the largest power of two of at
    most ``MOST`` and at most 1 / ``SHARE`` of its width."""
    found = {}
    for group in graph.groups:
        if group.ranked:
            step = min(MOST, max(1, len(group) * group.width // SHARE))
            found[group.name] = 1 << (step.bit_length() - 1)
    return found
