"""Nested state (of optimizers, scalers, search methods) as JSON plus named tensors, without pickling."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compressor.errors import TrainingError

_TENSOR, _ITEMS, _TUPLE = "__tensor__", "__items__", "__tuple__"


def flatten(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """``value`` as JSON, its tensors put into ``tensors`` under names that start with ``where``.

    Dicts may have whole numbers as keys, as optimizers' states do.

    Raises:
        TrainingError: something in it is neither a tensor nor a JSON value; names the place.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[where] = value
        return {_TENSOR: where}
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise TrainingError(f"{where} has the key {key!r}; a checkpoint holds text and whole numbers as keys.")
        return {_ITEMS: [[key, flatten(item, tensors, f"{where}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [flatten(item, tensors, f"{where}/{index}") for index, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    raise TrainingError(
        f"{where} is a {type(value).__name__}; a checkpoint holds tensors, numbers, text, and lists and dicts of them."
    )


def unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What ``flatten`` was given, with the tensors looked up by name."""
    if isinstance(value, list):
        return [unflatten(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(unflatten(item, tensors) for item in value[_TUPLE])
    return {key: unflatten(item, tensors) for key, item in value[_ITEMS]}
