"""What two models gave for the same inputs, side by side."""

from __future__ import annotations

import torch
from torch import Tensor

Seen = tuple[list[Tensor], list[tuple[str, Tensor]]]
"""Outputs, and what functions that decide were handed."""


def difference(expected: Seen, found: Seen, *, decisions: bool) -> tuple[float, str]:
    """The largest error of the outputs, and of what decided where both models made the same decisions; and what is
    wrong where it is infinite.
    """
    if any(map(is_nan, expected[0])):
        return float("inf"), "the masked model gives values that are no numbers (NaN)"
    shapes = [[list(t.shape) for t in outputs] for outputs, _ in (found, expected)]
    if shapes[0] != shapes[1]:
        return float("inf"), f"outputs have shapes {shapes[0]}, not {shapes[1]}"
    pairs = [(a.detach(), b.detach()) for a, b in zip(expected[0], found[0], strict=True)]
    if decisions and [name for name, _ in expected[1]] == [name for name, _ in found[1]]:
        each = zip(expected[1], found[1], strict=True)
        pairs += [(a.detach(), b.detach()) for (_, a), (_, b) in each if a.shape == b.shape and not is_nan(a)]
    off = max((error(a, b) for a, b in pairs), default=0.0)
    return off, f"they differ by {off:.1e}"


def is_nan(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and bool(torch.isnan(tensor).any())


def error(expected: Tensor, found: Tensor) -> float:
    """The largest difference over the largest number; infinities must be the same ones. Not-a-number equals nothing."""
    if expected.numel() == 0:
        return 0.0
    if not (expected.is_floating_point() or expected.is_complex()):
        return 0.0 if torch.equal(expected, found) else float("inf")
    finite = torch.isfinite(expected)
    if not bool(finite.all()):
        if not torch.equal(finite, torch.isfinite(found)) or not torch.equal(expected[~finite], found[~finite]):
            return float("inf")
        expected, found = expected[finite], found[finite]
        if not expected.numel():
            return 0.0
    scale = float(expected.abs().max())
    difference = float((expected - found).abs().max())
    if difference != difference:
        return float("inf")
    return difference / scale if scale > 0 else difference
