"""What is to be predicted. The loss that trains a network and the metric that judges it follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.data.boxes import are_boxes
from compressor.errors import DataError, UsageError

KINDS = ("classification", "multilabel", "segmentation", "detection", "language", "regression")
IGNORED = -100
"""The class of positions that count neither in the loss nor in the accuracy, as PyTorch's cross entropy has it."""
VOID = 255
"""What masks on disk have for such positions."""


@dataclass(frozen=True)
class Task:
    """The kind of targets.

    Attributes:
        kind: "classification" (one class each), "multilabel" (any number of labels each), "segmentation" (masks of
            classes, judged by regions), "detection" (boxes with classes; the model computes the loss), "language"
            (the token that follows each) or "regression".
        dense: a target for every position of the input, not one for the whole.
        relative: errors of a regression are taken relative to the size of the target, sample by sample.
        outputs: channels that a network must give: classes (of a detector with the background), labels or values;
            None if unknown.
    """

    kind: str = "classification"
    dense: bool = False
    relative: bool = False
    outputs: int | None = None

    @property
    def is_regression(self) -> bool:
        """Whether the targets are values and no classes."""
        return self.kind == "regression"

    @property
    def is_multilabel(self) -> bool:
        """Whether the targets say of every label whether it applies."""
        return self.kind == "multilabel"

    @property
    def is_segmentation(self) -> bool:
        """Whether the targets are masks: a class for every pixel, judged region by region."""
        return self.kind == "segmentation"

    @property
    def is_language(self) -> bool:
        """Whether the targets are the tokens that follow, for logits (N, L, vocabulary)."""
        return self.kind == "language"

    @property
    def is_detection(self) -> bool:
        """Whether the targets are boxes, of which a detector computes its loss itself."""
        return self.kind == "detection"


def find_task(inputs: Any, targets: Any, num_classes: int | None = None, kind: str | None = None) -> Task:
    """The task that a batch (or all) of the data speaks of.

    Whole-numbered targets are classes: (N,), or (N, *positions) for dense prediction. Booleans (N, labels) with two or
    more labels say which of them apply, and so do floats (N, labels) that are all 0 or 1, some of them 1, unless every
    row sums to one. Floats are class probabilities if they are (N, classes, ...) and sum to one over the classes;
    otherwise they are values to regress on. Values over positions, (N, channels, *positions) or (N, *positions) with
    the input's own positions, are a field, whose error is relative: the L2 norm of the difference over that of the
    target. Everything else is judged by the squared error.

    Args:
        kind: one of ``KINDS`` instead of what the targets' type and values say; None asks these.

    Raises:
        UsageError: another ``kind``.
        DataError: targets that are none of that kind.
    """
    require_kind(kind)
    if are_boxes(targets) or kind == "detection":
        if kind not in (None, "detection") or not are_boxes(targets):
            raise DataError(
                f"Targets are a {type(targets).__name__}, which do not fit the task {kind!r}; a detector's are a list "
                "with a dict of 'boxes' and 'labels' for each image."
            )
        return Task("detection", outputs=num_classes)
    if kind == "language":
        return Task("language", dense=True)
    if not isinstance(targets, Tensor) or targets.dim() < 1:
        return Task(outputs=num_classes)
    at = positions(inputs) if isinstance(inputs, Tensor) else ()
    if kind == "multilabel" or (kind is None and _are_labels(targets, at)):
        require_labels(targets)
        return Task("multilabel", outputs=targets.shape[1])
    if kind == "segmentation":
        if targets.is_floating_point() or targets.dim() != 3:
            raise DataError(
                f"Targets of {targets.dtype} and shape {list(targets.shape)} are no masks: those are whole numbers "
                "(N, H, W), a class for every pixel."
            )
        return Task("segmentation", dense=True, outputs=num_classes)
    if kind != "regression":
        if not targets.is_floating_point():
            if kind is None and targets.shape[1:] != at and _are_one_hot(targets):
                raise DataError(
                    f"Targets are whole numbers of shape {list(targets.shape)} with a single 1 in every row, the rest "
                    "0: that is one class each, written out. Give the classes themselves, (N,), as argmax(1) has them; "
                    "or say task=classification if they are classes of positions, task=multilabel if they are labels."
                )
            return Task(dense=targets.dim() > 1, outputs=num_classes)
        if _are_probabilities(targets):
            return Task(dense=targets.dim() > 2, outputs=targets.shape[1])
        if kind == "classification":
            raise DataError(
                f"Targets of {targets.dtype} and shape {list(targets.shape)} are no classes: those are whole numbers, "
                "or probabilities (N, classes, ...) that sum to one."
            )
    if at and targets.shape[1:] == at:
        return _field(targets, 1)
    if targets.dim() > 2:
        return _field(targets, targets.shape[1])
    return Task("regression", outputs=targets.shape[1] if targets.dim() == 2 else 1)


def require_kind(kind: str | None) -> None:
    """Raise ``UsageError`` unless ``kind`` is one of ``KINDS``, or None."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"task must be one of {', '.join(KINDS)}, not {kind!r}.")


def require_labels(targets: Tensor) -> None:
    """Raise ``DataError`` unless targets are (N, labels) of 0 and 1, or booleans."""
    if targets.dim() != 2 or targets.shape[1] < 2:
        raise DataError(f"Targets have shape {list(targets.shape)}; several labels are (N, labels), two or more.")
    if not _are_binary(targets):
        raise DataError("Targets hold other values than 0 and 1; a label applies or does not.")


def positions(inputs: Tensor) -> tuple[int, ...]:
    """The spatial sizes of inputs: (L,) of tokens (N, L), and what follows the channels (N, C, ...) of others."""
    return tuple(inputs.shape[1 if is_tokens(inputs) else 2 :])


def is_tokens(inputs: Any) -> bool:
    """Whether inputs are sequences of token numbers, (N, L)."""
    return isinstance(inputs, Tensor) and inputs.dtype == torch.int64 and inputs.dim() == 2


def _field(targets: Tensor, channels: int) -> Task:
    # A target of zeros has no size to be relative to.
    relative = bool((targets.flatten(1) != 0).any(1).all())
    return Task("regression", dense=True, relative=relative, outputs=channels)


def _are_probabilities(targets: Tensor) -> bool:
    if targets.dim() < 2 or targets.shape[1] < 2:
        return False
    return bool((targets >= 0).all()) and bool(((targets.sum(1) - 1).abs() < 1e-3).all())


def _are_labels(targets: Tensor, at: tuple[int, ...]) -> bool:
    """Booleans, or floats of 0 and 1 that are neither one-hot nor all zero, with no axis of the input's positions."""
    if targets.dim() != 2 or targets.shape[1] < 2 or targets.shape[1:] == at:
        return False
    if not targets.is_floating_point():
        return targets.dtype == torch.bool
    return _are_binary(targets) and bool(targets.any()) and not _are_probabilities(targets)


def _are_one_hot(targets: Tensor) -> bool:
    return targets.dim() == 2 and targets.shape[1] > 1 and _are_binary(targets) and bool((targets.sum(1) == 1).all())


def are_whole(targets: Tensor) -> bool:
    """Whether floats (N,) or (N, 1) are all whole numbers from 0 on, as classes are."""
    one = targets.is_floating_point() and targets.numel() == len(targets)
    return one and bool(((targets >= 0) & (targets == targets.round())).all())


def _are_binary(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())
