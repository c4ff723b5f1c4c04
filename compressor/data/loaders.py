"""Data sets from the user's own loaders.

A ``DataLoader`` over a map-style data set in plain or shuffled order is rebuilt for every pass with an order drawn from
the seed, so that the same seed gives the same batches. Any other loader is gone through as it is, in its own batches;
random generators are seeded around each of its steps and put back afterwards, so that its randomness, too, depends on
the seed alone as far as it uses torch's, numpy's or Python's global generators.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset
from torch.utils.data.distributed import DistributedSampler

from compressor.data.base import Data, Split, first_batch
from compressor.data.batches import first_of, read_batch
from compressor.data.classes import like_classes, unused_classes
from compressor.data.holdout import HOLDOUT_FRACTION, stratified_holdout
from compressor.data.memory import index_batches
from compressor.data.own_batches import Batch, OwnBatches, told_of
from compressor.data.task import find_task, require_kind
from compressor.errors import CompressorError, DataError
from compressor.process.generators import isolated_rng, rng_state, seeded_state
from compressor.process.ranks import current

Loader = Iterable[Any]
_LOOKED_AT = 8  # samples that the task is told by


def from_loaders(
    train: Loader,
    val: Loader | None = None,
    test: Loader | None = None,
    *,
    num_classes: int | None = None,
    vocabulary: int | None = None,
    task: str | None = None,
    own_loss: bool = False,
) -> Data:
    """A data set from loaders that yield batches of inputs and targets, see ``compressor.data.batches``.

    Args:
        train, val, test: ``DataLoader``s, or any iterables that can be gone through again, or ``Split``s. Without
            ``val``, a tenth of ``train`` is held out: samples of a rebuilt ``DataLoader``, else every tenth batch,
            which takes a loader that keeps its order.
        num_classes: None takes it from the data set's ``classes`` or labels, where it has them.
        vocabulary: how many tokens there are, if inputs are tokens.
        task: one of ``data.task.KINDS``, whatever the targets look like; without it the first validation batch says
            what the task is: see ``data.task.find_task``.
        own_loss: whether the user's own loss judges, which takes targets of any kind, or whole batches.

    Raises:
        UsageError: another ``task``.
        DataError: a loader is empty, can be gone through only once, or yields something else.
    """
    require_kind(task)
    train_split: Split
    val_split: Split
    if val is None:
        train_split, val_split = _hold_out(train, own_loss)
    else:
        train_split, val_split = _split(train, "train", own_loss), _split(val, "val", own_loss)
    inputs, targets = first_batch(val_split, _LOOKED_AT, "val")
    first_batch(train_split, _LOOKED_AT, "train")
    found = find_task(inputs, targets, num_classes, task)
    classes = found.outputs if found.is_multilabel else num_classes
    if classes is None and not found.is_regression:
        classes = _num_classes(train)
    test_split = _split(test, "test", own_loss) if test is not None else None
    names = _class_names(train)
    example = first_of(inputs)
    kept = [_kept_labels(_whole(loader)) for loader in (train, val, test) if loader is not None]
    labels = [each for each in kept if each is not None]
    unused = None
    if labels and num_classes is None and classes is not None and not names:
        unused = unused_classes(classes, labels)
    values = like_classes(found, targets) if task is None and not own_loss else None
    remarks = tuple(said for said in (unused, values) if said is not None)
    return Data("loaders", train_split, val_split, test_split, classes, example, found, vocabulary, remarks, names)


class DatasetSplit:
    """Samples of a map-style data set, collated as its ``DataLoader`` would; implements ``Split``."""

    def __init__(self, loader: DataLoader[Any], indices: Tensor | None = None, *, own_loss: bool = False) -> None:
        self._loader, self._own_loss = loader, own_loss
        self._indices = torch.arange(len(loader.dataset)) if indices is None else indices  # type: ignore[arg-type]

    @property
    def labels(self) -> Tensor:
        """The samples' labels where the data set keeps them, else zeros."""
        return _labels(self._loader.dataset)[self._indices]

    @property
    def sample_classes(self) -> Tensor | None:
        """The class of every sample where the data set keeps them."""
        labels = _kept_labels(self._loader.dataset)
        return None if labels is None else labels[self._indices]

    def subset(self, positions: Tensor) -> DatasetSplit:
        """The samples at these positions of the split."""
        return DatasetSplit(self._loader, self._indices[positions], own_loss=self._own_loss)

    def __len__(self) -> int:
        return len(self._indices)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Any, Any]]:
        """See ``Split.batches``. Augmentation is whatever the data set itself does."""
        seed = shuffle_seed or 0
        order = [
            self._indices[chosen].tolist() for chosen in index_batches(len(self), batch_size, shuffle_seed, drop_last)
        ]
        workers = self._loader.num_workers
        loader: DataLoader[Any] = DataLoader(
            self._loader.dataset,
            batch_sampler=order,
            collate_fn=self._loader.collate_fn,
            num_workers=workers,
            pin_memory=self._loader.pin_memory,
            prefetch_factor=self._loader.prefetch_factor,
            timeout=self._loader.timeout,
            worker_init_fn=self._loader.worker_init_fn,
            multiprocessing_context=self._loader.multiprocessing_context if workers else None,
            generator=torch.Generator().manual_seed(seed),
        )
        yield from (read_batch(batch, own_loss=self._own_loss) for batch in _seeded(loader, seed))


class IterableSplit(OwnBatches):
    """Batches of a loader as it yields them, all or every n-th."""

    def __init__(self, loader: Loader, *, every: int = 0, held_out: bool = False, own_loss: bool = False) -> None:
        if isinstance(loader, Iterator):  # asking iter(loader) would move a DataLoader's generator
            raise DataError(
                f"A {type(loader).__name__} can be gone through only once; pass a list of batches or a DataLoader."
            )
        super().__init__()
        self._loader, self._own_loss = loader, own_loss
        self._every = every
        self._held_out = held_out
        self._had_batches = False

    def one_pass(self, seed: int | None, *, augment: bool) -> Iterator[Batch]:
        """Order and augmentation are the loader's own, as far as generators that are global draw them.

        Raises:
            DataError: there were batches in a pass before, and there are none now.
        """
        found = False
        for number, batch in enumerate(_seeded(self._loader, seed or 0)):
            found = self._had_batches = True
            held_out = self._every > 0 and number % self._every == self._every - 1
            if held_out == self._held_out:
                yield read_batch(batch, own_loss=self._own_loss)
        if self._had_batches and not found:
            raise DataError(
                f"The batches of a {type(self._loader).__name__} were there once, and there are none when it is gone "
                "through again; give a loader that starts anew in every pass."
            )


def _split(loader: Loader, part: str, own_loss: bool) -> Split:
    if isinstance(loader, Split):
        return loader
    if _can_be_rebuilt(loader):
        return DatasetSplit(loader, own_loss=own_loss)  # type: ignore[arg-type]
    if not isinstance(loader, Iterable):
        raise DataError(f"The {part} data is a {type(loader).__name__}; expected a DataLoader or a list of batches.")
    return IterableSplit(loader, own_loss=own_loss)


def _hold_out(train: Loader, own_loss: bool) -> tuple[Split, Split]:
    if _can_be_rebuilt(train):
        kept, held = stratified_holdout(_labels(train.dataset))  # type: ignore[attr-defined]
        one, other = (DatasetSplit(train, part, own_loss=own_loss) for part in (kept, held))  # type: ignore[arg-type]
        return one, other
    if isinstance(train, Split) or not isinstance(train, Iterable):
        raise DataError("No validation split was given and none can be taken off this training set; pass val.")
    batches = _length(train)
    if batches is None:
        batches = sum(1 for _ in told_of(IterableSplit(train, own_loss=own_loss).one_pass(None, augment=False)))
    if batches < 2:
        raise DataError(
            f"The training data has {batches or 'no'} batch{'es' * (batches != 1)}, of which none can be held out; "
            "pass val, or two batches at least."
        )
    every = min(round(1 / HOLDOUT_FRACTION), batches)
    return (
        IterableSplit(train, every=every, own_loss=own_loss),
        IterableSplit(train, every=every, held_out=True, own_loss=own_loss),
    )


def _length(loader: Loader) -> int | None:
    """The length that a loader says it has; a ``DataLoader`` over a stream has the method, and does not know."""
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except Exception:  # the user's own code; batches are counted then
        return None


def batch_size_of(data: Any) -> int | None:
    """Samples in a batch of the training loader in what a user passes as data, over all processes; None if it does not
    say."""
    if isinstance(data, Mapping):
        train = data.get("train")
    else:
        train = next(iter(data), None) if isinstance(data, (tuple, list)) else data
    if not isinstance(train, DataLoader) or train.batch_size is None:
        return None
    replicas = train.sampler.num_replicas if isinstance(train.sampler, DistributedSampler) else 1
    return train.batch_size * replicas


def _can_be_rebuilt(loader: object) -> bool:
    """Whether nothing but the order would change if the loader were made anew.

    Where processes work together, one that parts the data set among them would give all of it: batches are parted here.
    """
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and isinstance(loader.dataset, Sized)
        and loader.batch_size is not None
        and (_is_plain(loader) or (current().size > 1 and type(loader.sampler) is DistributedSampler))
    )


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Whether a pass has all samples once, in stored or random order."""
    sampler = loader.sampler
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    return type(sampler) is SequentialSampler


def _labels(dataset: Any) -> Tensor:
    """The labels of all samples where the data set keeps them, else zeros: then the held-out part is not stratified."""
    labels = _kept_labels(dataset)
    return torch.zeros(len(dataset), dtype=torch.long) if labels is None else labels


def _kept_labels(dataset: Any) -> Tensor | None:
    if isinstance(dataset, Subset):
        labels = _kept_labels(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(list(dataset.indices))]
    labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
    tensors = getattr(dataset, "tensors", None)
    if labels is None and tensors is not None and len(tensors) > 1:
        labels = tensors[-1]
    if isinstance(labels, (list, tuple, np.ndarray, Tensor)) and len(labels) == len(dataset):
        values = torch.as_tensor(np.asarray(labels))
        if values.dim() == 1 and not values.is_floating_point():
            return values
    return None


def _num_classes(train: Loader) -> int | None:
    dataset = _whole(train)
    if isinstance(classes := getattr(dataset, "classes", None), (list, tuple)):
        return len(classes)
    if dataset is not None and isinstance(dataset, Sized) and not isinstance(dataset, IterableDataset):
        largest = int(_labels(dataset).max()) + 1
        return largest if largest > 1 else None
    return None


def _class_names(train: Loader) -> tuple[str, ...]:
    classes = getattr(_whole(train), "classes", None)
    return tuple(str(name) for name in classes) if isinstance(classes, (list, tuple)) else ()


def _whole(train: Loader) -> Any:
    """The data set of a loader, whatever part of it the loader has; None if there is none."""
    dataset = getattr(train, "dataset", None)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _seeded(loader: Loader, seed: int) -> Iterator[Any]:
    """Go through a loader with global generators of its own, seeded, so that its user's are neither read nor moved."""
    with isolated_rng(seeded_state(seed)), _speaking_of_data():
        iterator = iter(loader)
        inside = rng_state()
    while True:
        with isolated_rng(inside), _speaking_of_data():
            batch = next(iterator, _END)
            inside = rng_state()
        if batch is _END:
            return
        yield batch


@contextmanager
def _speaking_of_data() -> Iterator[None]:
    """What the user's own code raises inside is said to come from their data."""
    try:
        yield
    except (CompressorError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = str(error).strip().splitlines() or ["no message"]
        # A worker of a DataLoader sends its whole traceback, which ends with the error itself.
        line = said[-1] if len(said) > 1 and "in DataLoader worker" in said[0] else f"{type(error).__name__}: {said[0]}"
        raise DataError(f"A loader of the data raised {line}. Look at what it does with its samples.") from error


_END = object()
