"""What the user should know of the data, in a line each: classes that a split lacks, numbers that are no classes,
inputs that nobody has scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.data.base import Data
from compressor.data.task import Task, are_whole

_NAMED = 5  # classes that a remark names
_LARGE = 20.0  # of inputs: networks are made for numbers around 1
_FEW = 4  # samples for each value, at least, of what looks like classes


def remarks(data: Data) -> tuple[str, ...]:
    """All that the user should know of the data: what its source says, which classes a split lacks, and whether its
    inputs are of a size that networks do not expect."""
    found = (_single(data), missing_classes(data), unscaled(data.example_inputs))
    return (*data.remarks, *(said for said in found if said is not None))


def unscaled(example: Any) -> str | None:
    """What to tell of inputs, floats in any structure, that are far larger than 1."""
    for tensor in pytree.tree_leaves(example):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.numel():
            continue
        size = float(tensor.detach().double().square().mean().sqrt())
        if size > _LARGE:
            return (
                f"Inputs are numbers around {size:.3g}, and go into the network as they are; most networks are made "
                "for numbers around 1. Scale them, or store images as bytes (uint8), which are scaled."
            )
    return None


def unused_classes(classes: int, labels: Sequence[Tensor]) -> str | None:
    """What to tell where classes, counted up to the largest label of ``labels``, (N,) each, have no sample at all."""
    there = {number for each in labels for number in torch.unique(each).tolist()}
    without = set(range(classes)) - there
    if not without:
        return None
    return (
        f"No sample has {_counted(without, ())}, yet the network gets outputs for all from 0 to the largest label, "
        f"{classes - 1}. Count classes from 0 without gaps (numpy.unique(labels, return_inverse=True)[1]); if these "
        "are values to regress on, store floats or say task=regression."
    )


def like_classes(task: Task, targets: Tensor) -> str | None:
    """What to tell of floats to regress on that look like classes."""
    values = len(torch.unique(targets)) if task.is_regression and are_whole(targets) else len(targets)
    if values * _FEW > len(targets):
        return None
    return (
        f"Targets are floats, so they are values to regress on, but all are whole numbers, {values} different ones. If "
        "they are classes, store integers or say task=classification; if not, task=regression ends this warning."
    )


def _single(data: Data) -> str | None:
    if data.num_classes != 1 or data.task.kind != "classification":
        return None
    return "All samples have the same class: there is nothing to learn, and any network is right."


def missing_classes(data: Data) -> str | None:
    """What to tell of classes that the validation split lacks and the training split has, or the other way round.

    No sample is read: the classes are those that a split knows as ``sample_classes``, whole numbers (N,). Nothing is
    told where the targets are no classes of whole samples, or a split does not know them.
    """
    if data.task.kind != "classification" or data.task.dense:
        return None
    train, val = (_present(split) for split in (data.train, data.val))
    if train is None or val is None:
        return None
    said = [
        f"The {lacking} split has no sample of {_counted(classes, data.class_names)}, which the {other} split has."
        for lacking, other, classes in (
            ("validation", "training", train - val),
            ("training", "validation", val - train),
        )
        if classes
    ]
    if not said:
        return None
    return (
        f"{' '.join(said)} What is chosen or scored on the validation split says nothing of a class that only one has; "
        "pass splits with samples of every class."
    )


def _present(split: object) -> set[int] | None:
    labels = getattr(split, "sample_classes", None)
    return set(torch.unique(labels[labels >= 0]).tolist()) if isinstance(labels, Tensor) else None


def _counted(classes: set[int], names: Sequence[str]) -> str:
    """``3 classes (cat, 4, 7)``."""
    numbers = sorted(classes)
    shown = [names[number] if 0 <= number < len(names) else str(number) for number in numbers[:_NAMED]]
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"{len(numbers)} class{'es' if len(numbers) > 1 else ''} ({', '.join(shown)}{more})"
