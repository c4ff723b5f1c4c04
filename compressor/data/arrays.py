"""A data set from arrays: checks, layout, normalisation and the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.base import Data
from compressor.data.batches import plain
from compressor.data.classes import like_classes, unused_classes
from compressor.data.holdout import stratified_holdout
from compressor.data.memory import CropFlip, Normalise, TensorSplit
from compressor.data.task import IGNORED, VOID, Task, are_whole, find_task, is_tokens
from compressor.errors import DataError

Array = Tensor | NDArray[np.generic]
Pair = tuple[Array, Array]
_TOKEN_TYPES = {torch.int8, torch.int16, torch.int32, torch.int64}


def from_tensors(
    train: Pair,
    val: Pair | None = None,
    test: Pair | None = None,
    *,
    name: str = "tensors",
    num_classes: int | None = None,
    normalise: Normalise | None = None,
    augment: CropFlip | None = None,
    vocabulary: int | None = None,
    task: str | None = None,
) -> Data:
    """A data set that lies in memory.

    Args:
        train, val, test: pairs of inputs (N, ...) and targets. Without ``val``, a tenth of ``train`` is held out.
            uint8 inputs are scaled to [0, 1]; axis 1 is the channels. Wider integers (N, L) are tokens and stay
            integers. Targets are classes, (N,) or one for each position, if they are integers; floats are values to
            regress on (classes with ``task="classification"``, if they are whole), or class probabilities; booleans, or
            floats of 0 and 1, (N, labels), are labels. See ``data.task.find_task``.
        num_classes: None takes it from the largest label, if targets are integers.
        normalise: None gives uint8 inputs the mean and spread of ``train`` by channel, and leaves others as they are.
        augment: for training images, None for none.
        vocabulary: how many tokens there are, padding included; None takes it from the largest.
        task: one of ``data.task.KINDS``, whatever the targets look like; None looks at them.

    Raises:
        UsageError: another ``task``.
        DataError: lengths or shapes that disagree, labels or tokens out of range, values that are not finite.
    """
    parts = {"train": train, **({"val": val} if val else {}), **({"test": test} if test else {})}
    tensors = {part: _check(name, part, *pair) for part, pair in parts.items()}
    inputs, targets = tensors["train"]
    for part, (other, other_targets) in tensors.items():
        if other.shape[1:] != inputs.shape[1:] or other_targets.shape[1:] != targets.shape[1:]:
            raise DataError(
                f"{name}: {part} has samples of shape {list(other.shape[1:])} with targets of "
                f"{list(other_targets.shape[1:])}, train of {list(inputs.shape[1:])} with {list(targets.shape[1:])}; "
                "they must be equal."
            )
    if task == "classification" and all(are_whole(y) for _, y in tensors.values()):
        tensors = {part: (x, y.flatten().long()) for part, (x, y) in tensors.items()}
        inputs, targets = tensors["train"]
    found = find_task(inputs, torch.cat([y for _, y in tensors.values()]), kind=task)
    if found.is_segmentation and (num_classes is None or num_classes <= VOID):
        tensors = {part: (x, y.masked_fill(y == VOID, IGNORED)) for part, (x, y) in tensors.items()}
    tensors = {part: (x, _as_targets(y, found)) for part, (x, y) in tensors.items()}
    inputs, targets = tensors["train"]
    remarks = [like_classes(found, targets)] if task is None else []
    classes = found.outputs if found.is_multilabel else None
    if not targets.is_floating_point():
        classes = _check_labels(name, {part: y for part, (_, y) in tensors.items()}, num_classes)
        found = replace(found, outputs=classes)
        if num_classes is None and targets.dim() == 1:
            remarks.append(unused_classes(classes, [y for _, y in tensors.values()]))
    words = _check_tokens(name, {part: pair[0] for part, pair in tensors.items()}, vocabulary)
    if normalise is None and inputs.dtype == torch.uint8:
        normalise = channel_statistics(inputs)
    if "val" in tensors:
        kept: Tensor | None = None
        val_split = TensorSplit(*tensors["val"], normalise=normalise)
    else:
        kept, held = stratified_holdout(targets)
        val_split = TensorSplit(inputs, targets, indices=held, normalise=normalise)
    train_split = TensorSplit(inputs, targets, indices=kept, normalise=normalise, augment=augment)
    test_split = TensorSplit(*tensors["test"], normalise=normalise) if "test" in tensors else None
    example = next(iter(val_split.batches(1)))[0]
    told = tuple(said for said in remarks if said is not None)
    return Data(name, train_split, val_split, test_split, classes, example, found, words, told)


def channel_statistics(inputs: Tensor) -> Normalise:
    """Mean and spread by channel, axis 1, of inputs scaled to [0, 1]. A constant channel gets a spread of 1."""
    count = inputs.numel() / inputs.shape[1]
    # Histograms keep the sums exact and avoid a float copy of the whole set.
    mean, std = [], []
    for channel in inputs.unbind(1):
        histogram = torch.bincount(channel.flatten().long(), minlength=256).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        average = float((histogram * levels).sum() / count)
        spread = float(((histogram * (levels - average) ** 2).sum() / count).sqrt())
        mean.append(round(average, 4))
        std.append(round(spread, 4) or 1.0)
    return Normalise(tuple(mean), tuple(std))


def _check(name: str, part: str, inputs: Array, targets: Array) -> tuple[Tensor, Tensor]:
    """Tensors of a usable type: uint8, float32 or (tokens) int64 inputs, int64, float32 or bool targets."""
    x, y = _tensor(name, part, "inputs", inputs), _tensor(name, part, "targets", targets)
    if x.is_complex():
        raise DataError(f"{name}: {part} inputs are complex numbers, {x.dtype}; give real ones, two for each.")
    y = plain(y)
    if x.dim() < 2 or not len(x):
        raise DataError(f"{name}: {part} inputs have shape {list(x.shape)}; expected (samples, channels, ...).")
    if is_column(y.shape) and not y.is_floating_point():
        y = y[:, 0]
    if y.dim() < 1 or len(x) != len(y):
        raise DataError(f"{name}: {part} has {len(x)} inputs but targets of shape {list(y.shape)}; expected one each.")
    if x.dtype != torch.uint8:
        x = x.long() if x.dtype in _TOKEN_TYPES and x.dim() == 2 else x.float()
    if y.dtype != torch.bool:  # that they are booleans says what they mean
        y = y.float() if y.is_floating_point() else y.long()
    for what, values in (("inputs", x), ("targets", y)):
        if values.is_floating_point() and not bool(values.isfinite().all()):
            bad = int((~values.isfinite().reshape(len(values), -1).all(1)).nonzero()[0])
            raise DataError(f"{name}: {part} {what} hold values that are not finite, first in sample {bad}.")
    return x, y


def is_column(shape: Sequence[int]) -> bool:
    """Whether targets are (N, 1), as a table has them: those of classes are (N,)."""
    return len(shape) == 2 and shape[1] == 1


def _as_targets(targets: Tensor, task: Task) -> Tensor:
    """int64 for classes; float32 for labels, values and probabilities."""
    floats = task.is_multilabel or task.is_regression or targets.is_floating_point()
    return targets.float() if floats else targets.long()


def _tensor(name: str, part: str, what: str, values: Array) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        cure = "; numpy.unique(names, return_inverse=True)[1] numbers classes" if array.dtype.kind in "US" else ""
        raise DataError(f"{name}: {part} {what} have type {array.dtype}; expected numbers{cure}.")
    return as_tensor(np.ascontiguousarray(array))


def as_tensor(values: NDArray[np.generic]) -> Tensor:
    """Numbers of any width and byte order as a type that torch has, and computes with: uint8, bool, int64 or
    float32."""
    if values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
    elif values.dtype.kind in "iu" and values.dtype != np.uint8:
        values = values.astype(np.int64, copy=False)
    return torch.from_numpy(values if values.flags.writeable else np.array(values))


def _check_labels(name: str, targets: dict[str, Tensor], num_classes: int | None) -> int:
    classes = num_classes if num_classes is not None else max(int(targets["train"].max()) + 1, 1)
    for part, values in targets.items():
        wrong = (values < 0) | (values >= classes)
        if values.dim() > 1:
            wrong &= values != IGNORED
        if bool(wrong.any()):
            index = wrong.nonzero()[0]
            raise DataError(
                f"{name}: {part} label {int(values[tuple(index)])} of sample {int(index[0])} is out of range; "
                f"expected 0 to {classes - 1}."
            )
    return classes


def _check_tokens(name: str, inputs: dict[str, Tensor], vocabulary: int | None) -> int | None:
    """The size of the vocabulary: that of all parts, because a token that training lacks is no mistake."""
    if not is_tokens(inputs["train"]):
        return None
    words = vocabulary if vocabulary is not None else max(int(values.max()) for values in inputs.values()) + 1
    for part, values in inputs.items():
        wrong = (values < 0) | (values >= max(words, 1))
        if bool(wrong.any()):
            sample, place = wrong.nonzero()[0].tolist()
            raise DataError(
                f"{name}: {part} token {int(values[sample, place])} of sample {sample} is out of range; expected whole "
                f"numbers from 0 to {max(words, 1) - 1} (features that are no tokens must be floats)."
            )
    return words
