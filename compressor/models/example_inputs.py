"""How to make the inputs that a network was compressed with again, as JSON: kinds, shapes and ranges, not the data.

Of a tensor its shape, type and range are kept: floats are drawn at random, whole numbers (tokens) from their range.
What its values stand for is kept where other values would mean something else: masks, and whole numbers in one row or
none, which are lengths, positions or steps. Numbers, text, ``None`` and nesting are kept as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compressor.errors import UsageError
from exporters.example import Example
from exporters.inputs import batch_axes, is_mask

_FEW = 64  # values of a row that are kept as they are
_RUNS = 4096  # stretches of equal values in a mask that are
_LEVELS = 8
_MOST_ELEMENTS = 2**26
_NAMED: dict[type, str] = {torch.dtype: "dtype", torch.device: "device"}


def describe_inputs(example: Example) -> dict[str, Any]:
    """JSON that :func:`make_inputs` takes. What cannot be written down is named under ``unsupported``."""
    try:
        return {"args": [_node(value) for value in example.args], "kwargs": _items(example.kwargs)}
    except _UnsupportedError as error:
        return {"unsupported": str(error)}


def make_inputs(found: Any, batch: int | None = None) -> Example:
    """An example such as was described; the same values at every call.

    Args:
        batch: size of the batch axis, which the tensors have whose first size is that of the first; ``None`` leaves it.

    Raises:
        UsageError: what was described cannot be made again, or ``found`` is no description.
    """
    if isinstance(found, Mapping) and "unsupported" in found:
        raise UsageError(
            f"It was saved with an input of type {found['unsupported']}, which cannot be made again; "
            "pass example inputs from Python."
        )
    generator = torch.Generator().manual_seed(0)
    try:
        if isinstance(found, list):  # as earlier versions wrote it
            example = Example(tuple(_made({"tensor": entry}, generator) for entry in found))
        else:
            args = tuple(_made(node, generator) for node in found["args"])
            example = Example(args, {key: _made(node, generator) for key, node in found["kwargs"]})
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise UsageError(
            f"The example inputs cannot be read ({type(error).__name__}: {error}); compress the model again."
        ) from error
    if batch is None or not example.tensors:
        return example
    batched = zip(example.tensors, batch_axes(example.tensors), strict=True)
    return example.with_tensors([_resized(value, batch, generator) if first else value for value, first in batched])


class _UnsupportedError(Exception):
    """The name of a type that no JSON stands for."""


def _items(values: Mapping[Any, Any]) -> list[list[Any]]:
    if not all(isinstance(key, (str, int)) for key in values):
        raise _UnsupportedError("dict with keys that are no text or numbers")
    return [[key, _node(value)] for key, value in values.items()]


def _node(value: Any) -> dict[str, Any]:
    if value is None or isinstance(value, (bool, int, str)):
        return {"value": value}
    if isinstance(value, float):
        return {"value": value} if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, Tensor):
        return {"tensor": _tensor(value.detach().cpu())}
    for kind, name in _NAMED.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    if type(value) in (list, tuple, torch.Size):
        return {"list" if type(value) is list else "tuple": [_node(item) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": _items(value)}
    raise _UnsupportedError(type(value).__name__)


def _tensor(value: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if value.is_complex() or not value.numel():
        return found
    if is_mask(value):
        return {**found, **_mask(value)}
    if value.is_floating_point():
        return {**found, **({"positive": True} if bool((value > 0).all()) else {})}
    if value.ndim < 2 and value.numel() <= _FEW:
        return {**found, "values": value.flatten().tolist()}
    return {**found, "low": int(value.min()), "high": int(value.max())}


def _mask(value: Tensor) -> dict[str, Any]:
    """Its levels, and how often each follows on the other."""
    flat = value.flatten()
    levels, which, counts = [], [], []
    for entry, count in zip(*torch.unique_consecutive(flat, return_counts=True), strict=True):
        level = entry.item()
        if level not in levels:
            levels.append(level)
        which.append(levels.index(level))
        counts.append(int(count))
        if len(counts) > _RUNS or len(levels) > _LEVELS:
            return {} if flat.is_floating_point() else {"low": int(flat.min()), "high": int(flat.max())}
    texts = [level if not isinstance(level, float) or math.isfinite(level) else str(level) for level in levels]
    return {"levels": texts, "runs": [list(pair) for pair in zip(which, counts, strict=True)]}


def _made(node: Mapping[str, Any], generator: torch.Generator) -> Any:
    ((kind, value),) = node.items()
    if kind == "tensor":
        return _made_tensor(value, generator)
    if kind in ("list", "tuple"):
        items = [_made(item, generator) for item in value]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {key: _made(item, generator) for key, item in value}
    if kind == "number":
        return float(value)
    if kind == "dtype":
        return _dtype(value)
    if kind == "device":
        return torch.device("cpu")
    if kind != "value":
        raise ValueError(f"{kind!r} is no kind of input")
    return value


def _dtype(name: Any) -> torch.dtype:
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no type of tensors")
    return found


def _made_tensor(entry: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    shape, dtype = [int(size) for size in entry["shape"]], _dtype(entry["dtype"])
    if any(size < 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"{shape[:8]} is no shape of an example of at most {_MOST_ELEMENTS:,} elements")
    if "levels" in entry:
        if sum(pair[1] for pair in entry["runs"]) != math.prod(shape):
            raise ValueError("the runs of a mask do not fill its shape")
        levels = torch.tensor([float(level) for level in entry["levels"]], dtype=torch.float64)
        which = torch.tensor([pair[0] for pair in entry["runs"]], dtype=torch.int64)
        counts = torch.tensor([pair[1] for pair in entry["runs"]], dtype=torch.int64)
        return levels[torch.repeat_interleave(which, counts)].reshape(shape).to(dtype)
    if dtype.is_floating_point or dtype.is_complex:
        drawn = torch.randn(shape, generator=generator, dtype=dtype if dtype.is_complex else torch.float32)
        return (drawn.abs() + 1e-3 if entry.get("positive") else drawn).to(dtype)
    if "values" in entry:
        return torch.tensor(entry["values"], dtype=dtype).reshape(shape)
    if "low" in entry:
        return torch.randint(int(entry["low"]), int(entry["high"]) + 1, shape, generator=generator).to(dtype)
    return torch.ones(shape).to(dtype)


def _resized(value: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Another number of samples; further ones of floats are new, of everything else those there are, again."""
    if batch <= len(value) or not value.is_floating_point() or is_mask(value):
        return value[torch.arange(batch) % max(len(value), 1)]
    more = torch.randn((batch - len(value), *value.shape[1:]), generator=generator)
    return torch.cat([value, more.to(value.dtype)])
