"""Classes that one of two splits lacks: what is chosen on the one says nothing about them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.data.base import Data

_NAMED = 5  # classes that a remark names


def remarks(data: Data) -> tuple[str, ...]:
    """All that the user should know of the data: what its source says, and which classes a split lacks."""
    missing = missing_classes(data)
    return data.remarks if missing is None else (*data.remarks, missing)


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
