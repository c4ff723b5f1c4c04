"""Comparing an exported file with the model it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from exporters.base import Check
from exporters.errors import ExportCheckError
from exporters.inputs import eval_mode, flatten_outputs, model_device, random_inputs

Run = Callable[[tuple[Tensor, ...]], Sequence[np.ndarray]]


def compare(model: nn.Module, example_inputs: Sequence[Tensor], run: Run, batch: int | None, seed: int) -> Check:
    """Run both on the same random inputs and measure how far apart they are.

    Args:
        run: runs the exported file on CPU tensors and returns its outputs in the model's order.
        batch: batch size; ``None`` leaves the example's.
    """
    return compare_on(model, random_inputs(example_inputs, batch, seed=seed, device=model_device(model)), run)


def compare_on(model: nn.Module, inputs: Sequence[Tensor], run: Run) -> Check:
    """Run both on ``inputs``, which lie where the model does."""
    with eval_mode(model), torch.inference_mode():
        expected = [value.detach().cpu() for _, value in flatten_outputs(model(*inputs))]
    found = run(tuple(value.cpu() for value in inputs))
    if len(found) != len(expected):
        raise ExportCheckError(f"The exported file has {len(found)} outputs, the model has {len(expected)}.")
    max_abs, rel, scale = 0.0, 0.0, 0.0
    for position, (want, have) in enumerate(zip(expected, found, strict=True)):
        reference = want.to(torch.float64).numpy()
        if tuple(have.shape) != tuple(reference.shape):
            raise ExportCheckError(
                f"Output {position} has shape {tuple(have.shape)} in the exported file, {reference.shape} in PyTorch."
            )
        absolute, relative = distance(reference, np.asarray(have, dtype=np.float64))
        max_abs, rel = max(max_abs, absolute), max(rel, relative)
        scale = max(scale, float(np.abs(reference).max(initial=0.0)))
    return Check(inputs[0].shape[0] if inputs[0].ndim else 1, max_abs, rel, scale)


def distance(reference: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """max|difference| and the same over max|reference|; infinite if not-a-numbers stand in different places."""
    if reference.size == 0:
        return 0.0, 0.0
    finite = np.isfinite(reference)
    if not np.array_equal(finite, np.isfinite(found)):
        return float("inf"), float("inf")
    if not finite.any():
        return 0.0, 0.0
    absolute = float(np.abs(reference[finite] - found[finite]).max())
    scale = float(np.abs(reference[finite]).max())
    return absolute, absolute / scale if scale > 0 else (0.0 if absolute == 0 else float("inf"))


def check_all(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    run: Run,
    *,
    batches: Sequence[int | None],
    tolerance: float,
    seed: int = 0,
    what: str,
) -> tuple[Check, ...]:
    """Compare on every batch size. Raises :class:`ExportCheckError` above ``tolerance``."""
    checks = []
    for index, batch in enumerate(batches):
        check = compare(model, example_inputs, run, batch, seed + index)
        if not check.rel_error <= tolerance:
            raise ExportCheckError(
                f"{what} differs from PyTorch by {check.rel_error:.1e} of the largest output at batch {check.batch}, "
                f"more than the {tolerance:.0e} allowed; nothing was written. Raise the tolerance only if you know why."
            )
        checks.append(check)
    return tuple(checks)


def check_notes(checks: Sequence[Check]) -> list[str]:
    """What a reader should know about checks that passed."""
    if checks and all(check.max_abs_output == 0.0 for check in checks):
        return ["Every output of the model is zero, so the comparison with PyTorch says little."]
    return []
