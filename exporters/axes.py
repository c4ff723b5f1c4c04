"""Axes that an exported file leaves open: the batch, and others that were asked for or that the model leaves free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from exporters.errors import ExporterUsageError
from exporters.example import Example
from exporters.inputs import batch_axes

#: Per input tensor the open axes, each with its name; axes of one name have one size.
Axes: TypeAlias = tuple[Mapping[int, str], ...]

#: What users may ask for: per input name the axes, with names or without; ``"auto"`` opens the positions of sequences.
Asked: TypeAlias = Mapping[str, Mapping[int, str] | Sequence[int]] | str | None

AUTO = "auto"


def read_axes(asked: Asked, model: nn.Module, example: Example) -> Axes:
    """Per tensor of the example what is to be open besides the batch.

    ``"auto"`` opens what it can (named ``"auto"``) where the first input is a sequence, of tokens (B, L) or signals
    (B, C, L), and nothing for images.

    Raises:
        ExporterUsageError: there is no such input or axis, or axes of one name have different sizes.
    """
    tensors = example.tensors
    if asked is None or asked == AUTO:
        free = asked == AUTO and _is_sequence(tensors[0])
        return tuple(dict.fromkeys(range(1, tensor.ndim), AUTO) if free else {} for tensor in tensors)
    if not isinstance(asked, Mapping):
        raise ExporterUsageError(
            f"dynamic_axes is {asked!r}; expected a mapping such as {{'input': {{2: 'length'}}}}, \"auto\" or None."
        )
    names = example.names(model)
    places = {name: i for i, name in enumerate(names)}
    if example.is_one_tensor:
        places.update(dict.fromkeys(example.bound(model), 0))
    found: list[dict[int, str]] = [{} for _ in tensors]
    sizes: dict[str, int] = {}
    for name, axes in asked.items():
        if name not in places:
            raise ExporterUsageError(f"There is no input {name!r} to open axes of; the inputs are {', '.join(names)}.")
        tensor = tensors[places[name]]
        named = axes if isinstance(axes, Mapping) else {axis: f"{name}_{axis}" for axis in axes}
        for axis, label in named.items():
            if not isinstance(axis, int) or not -tensor.ndim <= axis < tensor.ndim:
                raise ExporterUsageError(f"The input {name!r} has {tensor.ndim} axes, from 0; there is no axis {axis}.")
            axis %= tensor.ndim
            if not isinstance(label, str) or not label.isidentifier():
                raise ExporterUsageError(f"An open axis needs a name such as length, not {label!r}.")
            if sizes.setdefault(label, tensor.shape[axis]) != tensor.shape[axis]:
                raise ExporterUsageError(
                    f"Axes named {label!r} are to have one size, but the example has {sizes[label]} and "
                    f"{tensor.shape[axis]}; give them names of their own."
                )
            if axis or not batch_axes(tensors)[places[name]]:  # the batch is open by itself
                found[places[name]][axis] = label
    return tuple(found)


def _is_sequence(tensor: Tensor) -> bool:
    return tensor.ndim == 3 if tensor.is_floating_point() else tensor.ndim == 2


def dynamic_shapes(model: nn.Module, example: Example, axes: Axes, *, batch: bool, named: bool) -> dict[str, Any]:
    """What ``torch.export`` wants as ``dynamic_shapes``, by the names of the forward's arguments.

    Args:
        named: whether open axes are given by their names, as ``torch.onnx.export`` takes them.
    """
    import torch

    dim = torch.export.Dim
    first = dim("batch", min=1)
    batched = batch_axes(example.tensors)

    def one(i: int) -> Any:
        opened: dict[int, Any] = {
            axis: dim.AUTO if label == AUTO else label if named else dim.DYNAMIC for axis, label in axes[i].items()
        }
        if batch and batched[i]:
            opened[0] = first
        return opened or None

    return example.mapped(model, one)


def tracing_sizes(example: Example, axes: Axes) -> list[dict[int, int]]:
    """Sizes to trace with: an open axis of one would be taken for a constant."""
    return [
        {axis: 3 for axis, label in opened.items() if label != AUTO and tensor.shape[axis] < 2}
        for tensor, opened in zip(example.tensors, axes, strict=True)
    ]


def other_sizes(example: Example, opened: Axes) -> list[list[dict[int, int]]]:
    """Per comparison, per tensor: other sizes of the open axes, the same for axes of one name."""
    ways: tuple[Callable[[int], int], ...] = (lambda n: 2 * n, lambda n: n + n // 2 + 1, lambda n: max(n // 2, 1))
    return [
        [{axis: way(tensor.shape[axis]) for axis in axes} for tensor, axes in zip(example.tensors, opened, strict=True)]
        for way in ways
    ]
