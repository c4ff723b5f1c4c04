"""What training and measuring need of data: splits that give batches, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from compressor.data.batches import call_of, sample_shape
from compressor.data.task import Task
from compressor.errors import DataError
from exporters.example import Example


@runtime_checkable
class Split(Protocol):
    """Samples that can be gone through any number of times."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Any, Any]]:
        """Go through all samples once.

        Args:
            batch_size: samples in a batch; the last one may be smaller.
            shuffle_seed: None keeps the stored order. The same seed gives the same batches, in any process.
            augment: whether to vary the inputs at random, where the data set has a way to; follows ``shuffle_seed``.
            drop_last: whether to leave out a last batch that is smaller.

        Yields:
            Inputs, float32 (B, ...) or int64 (B, L) for tokens, or a tuple or dict of those that a forward takes; and
            targets, int64 (B,) or (B, ...) for classes, float32 or bool (B, labels) for labels, a list with a dict for
            each image for boxes, or what a loss of the user's own takes; on the CPU.
        """
        ...


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        name: how the data set was asked for.
        train: samples to train on.
        val: samples to choose by; not in ``train``.
        test: samples to report on, never used before; None if the source has none.
        num_classes: number of classes or labels; None if the targets are neither, or unknown.
        example_inputs: one input as a batch, (1, C, H, W) for images, (1, C, L) for signals, (1, L) for tokens; a
            tuple or list of positional arguments, or a dict of keyword arguments, of networks that take more.
        task: what is to be predicted; training and evaluation take their loss and metric from it.
        vocabulary: inputs are tokens from 0 to ``vocabulary - 1``, padding included; None if they are no tokens.
        class_names: names of the classes by their number; none if unknown.
        remarks: what the user should know of the data, such as what of it had to be skipped; a line each.
    """

    name: str
    train: Split
    val: Split
    test: Split | None
    num_classes: int | None
    example_inputs: Any
    task: Task = field(default_factory=Task)
    vocabulary: int | None = None
    remarks: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def example(self) -> Example:
        """The call of a network that ``example_inputs`` stands for."""
        return call_of(self.example_inputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input without its batch axis."""
        return sample_shape(self.example)

    @property
    def outputs(self) -> int | None:
        """Channels that a network for this data must give: classes, labels or values; None if unknown."""
        return self.num_classes if self.num_classes is not None else self.task.outputs

    def describe(self) -> dict[str, Any]:
        """Name, sizes and shapes as JSON values."""
        return {
            "name": self.name,
            "train_samples": len(self.train),
            "val_samples": len(self.val),
            "test_samples": None if self.test is None else len(self.test),
            "num_classes": self.num_classes,
            "input_shape": list(self.input_shape),
            "task": f"{'dense ' if self.task.dense else ''}{self.task.kind}",
            "outputs": self.outputs,
            "vocabulary": self.vocabulary,
        }


def first_batch(split: Split, size: int, part: str) -> tuple[Any, Any]:
    """The first ``size`` samples of a split, or the first batch of one that has batches of its own. Raises
    ``DataError`` if there is none."""
    batch = next(iter(split.batches(size)), None)
    if batch is None:
        raise DataError(f"The {part} data has no batches; give it at least one.")
    return batch


def usual_batch(split: Split, count: int) -> int:
    """Samples in a batch where nothing is trained and nobody says how many: ``count``, or what the split asks for by
    its ``measured_in``, where samples are large."""
    return min(count, int(getattr(split, "measured_in", count)))
