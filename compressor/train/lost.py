"""Where a loss that is not finite came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.nn.tensors import not_finite


def what_is_lost(model: nn.Module, batches: Sequence[tuple[Any, Any]]) -> str:
    """A sentence or two on what is NaN or infinite, and the cure; ``batches``: inputs and targets of the step."""
    for name, values in zip(("inputs", "targets"), zip(*batches, strict=True), strict=False):
        lost = sum(int((~torch.isfinite(t)).sum()) for t in _numbers(values))
        if lost:
            return f"The {name} of its batch have {lost} values that are NaN or infinite: mend the data."
    weights = not_finite(model)
    if weights:
        more = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
        return f"Before it {weights[0]}{more} had become NaN or infinite: lower the learning rate, or set grad_clip."
    return (
        "Data and weights are finite, so it is the forward or the loss that overflows or divides by zero: lower the "
        "learning rate, set grad_clip, or mend the loss."
    )


def _numbers(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
