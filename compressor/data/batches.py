"""What a loader's batches mean: which part goes into the network, and which is what it should say.

| batch | the network is called as | targets |
| --- | --- | --- |
| ``(x, y)`` | ``model(x)`` | ``y`` |
| ``((a, b), y)``, ``(a, b, y)`` | ``model(a, b)`` | ``y`` |
| ``({"a": a, "b": b}, y)`` | ``model(a=a, b=b)`` | ``y`` |
| ``{"a": a, "b": b, "labels": y}`` | ``model(a=a, b=b)`` | ``y`` |
| ``(images, targets)``, a dict with boxes and labels for each | ``model(images, targets)`` | ``targets`` |
| ``x``, ``(x,)``, a dict without labels | as above | all of it; only with a loss of the user's own |
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.data.boxes import are_boxes
from compressor.errors import DataError
from exporters.example import Example

LABELS = ("labels", "label", "targets", "target", "y")
_FORMS = (
    "(inputs, targets), ((a, b), targets), (a, b, targets), (dict of inputs, targets), or a dict of inputs with "
    f"{', '.join(map(repr, LABELS[:4]))} or {LABELS[4]!r} among them"
)

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def read_batch(batch: Any, *, own_loss: bool = False) -> tuple[Any, Any]:
    """Inputs, as ``train.splits.call_model`` takes them (a tensor, a tuple of arguments or a dict of keyword
    arguments), and targets.

    Args:
        own_loss: whether the user's own loss judges, which may take targets of any kind.

    Raises:
        DataError: the batch has no such form.
    """
    if isinstance(batch, Mapping):
        return _labelled(dict(batch), own_loss)
    parts = (batch,) if isinstance(batch, (Tensor, np.ndarray)) else batch
    if not isinstance(parts, (tuple, list)) or not parts:
        raise DataError(f"A loader yielded a {type(batch).__name__}; expected {_FORMS}.")
    if len(parts) == 1:
        if isinstance(parts[0], Mapping):
            return _labelled(dict(parts[0]), own_loss)
        if not own_loss:
            raise DataError(f"A loader yielded batches without targets; expected {_FORMS}, or pass a loss_fn.")
        return (inputs := _inputs(parts[0])), inputs
    if len(parts) == 2 and are_boxes(parts[1]) and isinstance(parts[0], (list, tuple)):
        images, targets = ([_tensors(each) for each in part] for part in parts)
        return (images, targets), targets
    first = _inputs(parts[0]) if len(parts) == 2 else tuple(_tensor(part) for part in parts[:-1])
    return first, _targets(parts[-1], own_loss)


def _labelled(batch: dict[Any, Any], own_loss: bool) -> tuple[Any, Any]:
    found = [key for key in LABELS if key in batch]
    if not found and own_loss:
        return (inputs := _inputs(batch)), inputs
    if not found or len(batch) == 1:
        raise DataError(
            f"A loader yielded a dict with {', '.join(map(repr, batch)) or 'nothing'}; it needs the inputs of the "
            f"network by name and the targets as one of {', '.join(map(repr, LABELS))}."
        )
    targets = batch.pop(found[0])
    return _inputs(batch), _targets(targets, own_loss)


def _inputs(value: Any) -> Any:
    """A tensor, a tuple of arguments, or a dict of keyword arguments."""
    if isinstance(value, Mapping):
        strange = [key for key, item in value.items() if _is_text(item)]
        if strange:
            raise DataError(
                f"A loader yielded inputs {', '.join(map(repr, strange))} of text, which no network takes; remove "
                "these columns from the data set."
            )
        return {str(key): _tensors(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_tensor(item) for item in value)
    return _tensor(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, (tuple, list)) and any(isinstance(v, str) for v in value))


def _tensors(value: Any) -> Any:
    return pytree.tree_map(lambda leaf: torch.as_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, value)


def _tensor(value: Any) -> Any:
    """A tensor, or a structure of tensors as one argument."""
    found = _tensors(value)
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(found)) and found is not None:
        raise DataError(f"A loader yielded a {type(value).__name__} among the inputs; expected {_FORMS}.")
    return found


def _targets(value: Any, own_loss: bool) -> Any:
    found = _tensors(value)
    if isinstance(found, Tensor) and not own_loss:
        found = plain(found)
    if isinstance(found, (list, tuple)) and found and all(isinstance(item, (bool, int, float)) for item in found):
        found = torch.as_tensor(found)
    if not isinstance(found, Tensor) and not own_loss:
        raise DataError(
            f"A loader yielded targets that are a {type(value).__name__}; expected one tensor, or pass a "
            "loss_fn(outputs, targets) that takes them."
        )
    if isinstance(found, Tensor) and not found.ndim and not own_loss:
        raise DataError(
            "A loader yielded one target without an axis of samples; expected batches, so give the DataLoader a "
            "batch_size."
        )
    return found


def plain(targets: Tensor) -> Tensor:
    """Targets of a type that PyTorch computes with: int64 for wide numbers without a sign. Raises ``DataError`` for
    complex ones."""
    if targets.is_complex():
        raise DataError(
            f"Targets are complex numbers, {targets.dtype}; give real ones (torch.view_as_real makes two of each), or "
            "pass a loss_fn(outputs, targets)."
        )
    return targets.long() if targets.dtype in _UNSIGNED else targets


def first_of(inputs: Any) -> Any:
    """The first sample of a batch of inputs, as a batch; of a detector's the image, (1, C, H, W)."""
    if _of_a_detector(inputs):
        return inputs[0][0][None]
    return pytree.tree_map(lambda leaf: leaf[:1] if isinstance(leaf, Tensor) and leaf.ndim else leaf, inputs)


def sample_count(inputs: Any, targets: Any) -> int:
    """Samples in a batch: as many as there are targets, or inputs where targets are no tensors."""
    if are_boxes(targets):
        return len(targets)
    leaves = [leaf for leaf in pytree.tree_leaves((targets, inputs)) if isinstance(leaf, Tensor) and leaf.ndim]
    return len(leaves[0]) if leaves else 1


def sample_shape(call: Example) -> tuple[int, ...]:
    """The shape of the first input without its batch axis; of lists of images that of the first image."""
    first = call.tensors[0]
    listed = bool(call.args) and isinstance(call.args[0], list)
    return tuple(first.shape if listed else first.shape[1:])


def samples_of(values: Any, start: int, stop: int, of: int) -> Any:
    """Samples ``start`` to ``stop`` of the ``of`` samples of a batch's inputs or targets: rows of tensors, items of
    lists that have one for each; what has neither stays whole."""
    if _of_a_detector(values):  # images have rows, too, and there may be as many as samples
        return tuple(list(each)[start:stop] for each in values)
    if isinstance(values, Tensor):
        return values[start:stop] if values.ndim and len(values) == of else values
    if isinstance(values, list) and len(values) == of and not _have_rows(values, of):
        return values[start:stop]
    if isinstance(values, Mapping):
        return {key: samples_of(value, start, stop, of) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        items = [samples_of(value, start, stop, of) for value in values]
        return type(values)(*items) if hasattr(values, "_fields") else type(values)(items)
    return values


def _of_a_detector(inputs: Any) -> bool:
    """Whether inputs are images and what is in each of them, as a detector takes them."""
    return isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[0], list) and are_boxes(inputs[1])


def _have_rows(values: list[Any], of: int) -> bool:
    """Whether the items are tensors with a row for each sample, not the samples themselves."""
    return all(isinstance(value, Tensor) and value.ndim and len(value) == of for value in values)


def call_of(inputs: Any) -> Example:
    """How a network is called with a batch's inputs."""
    if isinstance(inputs, Mapping):
        return Example((), inputs)
    return Example(tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,))


def require_call(model: nn.Module, inputs: Any) -> None:
    """Raise ``DataError`` if the forward of ``model`` cannot be called with a batch's inputs, before any work."""
    call = call_of(inputs)
    try:
        signature = inspect.signature(model.forward)
        signature.bind(*call.args, **call.kwargs)
    except ValueError:
        return
    except TypeError as error:
        given = ", ".join(map(repr, call.kwargs)) or f"{len(call.args)} inputs"
        raise DataError(
            f"The batches of the data have {given}, but the forward of {type(model).__name__} takes {signature}: "
            f"{error}. Batches are {_FORMS}; leave out what the network does not take."
        ) from error
