"""Comparing an exported file with the model it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from exporters.axes import AUTO, Axes, other_sizes
from exporters.base import ExportCheck
from exporters.errors import ExportCheckError, UnsupportedExportError
from exporters.example import Example
from exporters.inputs import eval_mode, flatten_outputs, model_device, random_inputs
from exporters.quiet import first_line

Run = Callable[[tuple[Tensor, ...]], Sequence[np.ndarray]]
Sizes: TypeAlias = Sequence[Mapping[int, int]]


def compare(
    model: nn.Module, example: Example, run: Run, batch: int | None, seed: int, sizes: Sizes | None = None
) -> ExportCheck:
    """Run both on the same random inputs and measure how far apart they are.

    Args:
        run: runs the exported file on CPU tensors and returns its outputs in the model's order.
        batch: batch size; ``None`` leaves the example's.
        sizes: per tensor other sizes by axis.
    """
    inputs = random_inputs(example.tensors, batch, seed=seed, device=model_device(model), sizes=sizes)
    return compare_on(model, example, inputs, run)


def compare_on(model: nn.Module, example: Example, inputs: Sequence[Tensor], run: Run) -> ExportCheck:
    """Run both on ``inputs``, which lie where the model does.

    Raises :class:`UnsupportedExportError` if the model itself does not run on them.
    """
    expected = _outputs(model, example, [x.clone() for x in inputs])  # a forward may change them in place
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
    return ExportCheck(inputs[0].shape[0] if inputs[0].ndim else 1, max_abs, rel, scale)


def _outputs(model: nn.Module, example: Example, inputs: Sequence[Tensor]) -> list[Tensor]:
    try:
        with eval_mode(model), torch.inference_mode():
            given = [value.clone() for value in inputs]  # a forward may change its input
            return [value.detach().cpu() for _, value in flatten_outputs(example.run(model, given))]
    except Exception as error:  # whatever the user's forward may raise
        shapes = ", ".join("x".join(map(str, value.shape)) or "a number" for value in inputs)
        raise UnsupportedExportError(
            f"{type(model).__name__} itself does not run on inputs of {shapes}: {first_line(error)}"
        ) from error


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
    example: Example,
    run: Run,
    *,
    batches: Sequence[int | None],
    tolerance: float,
    seed: int = 0,
    what: str,
    opened: Axes = (),
) -> tuple[ExportCheck, ...]:
    """Compare on every batch size, and where axes beside the batch are open at other sizes of theirs.

    Raises :class:`ExportCheckError` above ``tolerance``, :class:`UnsupportedExportError` where one of the two does not
    run.
    """
    checks = []
    plans: list[tuple[int | None, Sizes | None]] = [(batch, None) for batch in batches]
    if any(opened):
        plans += [(batches[-1], sizes) for sizes in sizes_that_run(model, example, batches[-1], opened)]
    for index, (batch, sizes) in enumerate(plans):
        check = compare(model, example, run, batch, seed + index, sizes)
        if not check.rel_error <= tolerance:
            raise ExportCheckError(
                f"{what} differs from PyTorch by {check.rel_error:.1e} of the largest output at batch {check.batch}, "
                f"more than the {tolerance:.0e} allowed; nothing was written. Raise the tolerance only if you know why."
            )
        checks.append(check)
    return tuple(checks)


def free_axes(model: nn.Module, example: Example, axes: Axes) -> Axes:
    """``axes`` without those to be found (``AUTO``) at whose other sizes the model does not run.

    Tracers leave axes open that a forward refuses to see changed, such as the channels of a 1D convolution. An axis is
    tried by itself, then together with others of its size, as of two inputs with one length.
    """
    found = [(i, axis) for i, opened in enumerate(axes) for axis, label in opened.items() if label == AUTO]

    def runs(places: Sequence[tuple[int, int]]) -> bool:
        opened = tuple({axis: AUTO for j, axis in places if j == i} for i in range(len(axes)))
        try:
            sizes_that_run(model, example, None, opened)
        except UnsupportedExportError:
            return False
        return True

    free = {place for place in found if runs([place])}
    tied: dict[int, list[tuple[int, int]]] = {}
    for i, axis in found:
        if (i, axis) not in free:
            tied.setdefault(example.tensors[i].shape[axis], []).append((i, axis))
    free |= {place for places in tied.values() if len(places) > 1 and runs(places) for place in places}
    return tuple(
        {axis: label for axis, label in opened.items() if label != AUTO or (i, axis) in free}
        for i, opened in enumerate(axes)
    )


def sizes_that_run(model: nn.Module, example: Example, batch: int | None, opened: Axes) -> list[Sizes]:
    """Two other sizes of the open axes that the model itself runs at.

    Raises :class:`UnsupportedExportError` if it runs at none.
    """
    found: list[Sizes] = []
    failure = None
    for sizes in other_sizes(example, opened):
        inputs = random_inputs(example.tensors, batch, device=model_device(model), sizes=sizes)
        try:
            _outputs(model, example, inputs)
        except UnsupportedExportError as error:
            failure = error
        else:
            found.append(sizes)
    if not found and failure is not None:
        raise failure
    return found[:2]


def check_notes(checks: Sequence[ExportCheck]) -> list[str]:
    """What a reader should know about checks that passed."""
    if checks and all(check.max_abs_output == 0.0 for check in checks):
        return ["Every output of the model is zero, so the comparison with PyTorch says little."]
    return []
