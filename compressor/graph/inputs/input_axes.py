"""Which axes of a model's inputs hold examples, and the same inputs in other sizes.

Costs are those of one example, so a trace cuts the inputs to one where it can. Which axis that is along is found by
evidence (``batch``) or said by the user. A check wants more than the inputs given: ``variants`` gives the same inputs
as another number of examples and in other lengths, as far as the original takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.errors import UsageError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""
BatchAxis = int | Sequence[int | None] | str | None
"""What a user may say: ``"auto"``, one axis for all tensors, one per tensor, or ``None`` where there is no batch."""


@dataclass(frozen=True)
class InputAxes:
    """``batch`` has, for each tensor among the inputs, the axis that examples lie along, or ``None``."""

    batch: tuple[int | None, ...]

    @property
    def batched(self) -> bool:
        """Whether there is a batch axis at all."""
        return any(axis is not None for axis in self.batch)

    def size(self, inputs: Arguments) -> int:
        """How many examples there are; 1 where there is no batch axis."""
        sizes = [t.shape[d] for t, d in zip(input_tensors(*inputs), self.batch, strict=True) if d is not None]
        return sizes[0] if sizes else 1

    def take(self, inputs: Arguments, positions: Sequence[int]) -> Arguments:
        """The examples at these positions, which may repeat; as they are where there is no batch axis."""
        places = {(i, d): list(positions) for i, d in enumerate(self.batch) if d is not None}
        return _taken(inputs, places)

    def one(self, inputs: Arguments) -> Arguments:
        """The first example, as a batch of one."""
        return inputs if self.size(inputs) == 1 else self.take(inputs, [0])

    def resized(self, inputs: Arguments, n: int) -> Arguments:
        """``n`` examples, the given ones over and over."""
        size = self.size(inputs)
        return self.take(inputs, [i % size for i in range(n)])


def require_examples(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise ``UsageError`` if all input tensors are empty: nothing would be computed, and everything would be free."""
    tensors = input_tensors(args, kwargs)
    if tensors and not any(t.numel() for t in tensors):
        shapes = ", ".join(str(list(t.shape)) for t in tensors)
        raise UsageError(f"The example inputs are empty (shapes {shapes}); pass at least one example.")


@dataclass(frozen=True)
class Variant:
    """Inputs of another size that the original takes; ``name`` says which, for messages."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def arguments(example_inputs: Any, example_kwargs: dict[str, Any] | None = None) -> Arguments:
    """What a user passes, as positional and keyword arguments: a tuple or list is several positional ones."""
    args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    return args, example_kwargs or {}


def input_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """All tensors among the inputs: positional ones first, whatever lists and dictionaries they lie in."""
    return [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


def equal_axes(inputs: Arguments, d: int) -> InputAxes:
    """Axis ``d`` of every tensor that has as many indices there as the first that has such an axis."""
    tensors = input_tensors(*inputs)
    n = next((t.shape[d] for t in tensors if t.dim() > d), None)
    return InputAxes(tuple(d if t.dim() > d and t.shape[d] == n else None for t in tensors))


def given_axes(batch_axis: BatchAxis, inputs: Arguments) -> InputAxes | None:
    """The axes a user names; ``None`` for ``"auto"``.

    Raises:
        UsageError: an axis that is none, or axes of different sizes.
    """
    tensors = input_tensors(*inputs)
    if isinstance(batch_axis, str):
        if batch_axis != "auto":
            raise UsageError(
                f"batch_axis={batch_axis!r} is not known; pass 'auto', an axis, one axis per input tensor, or None."
            )
        return None
    if batch_axis is None:
        return InputAxes((None,) * len(tensors))
    if isinstance(batch_axis, Sequence):
        named = list(batch_axis)
        if len(named) != len(tensors):
            raise UsageError(
                f"batch_axis has {len(named)} entries for {len(tensors)} input tensors; pass one for each."
            )
    else:
        named = [batch_axis] * len(tensors)
    axes: list[int | None] = []
    for number, (axis, tensor) in enumerate(zip(named, tensors, strict=True)):
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
            raise UsageError(f"batch_axis must be made of integers or None, not {axis!r}.")
        if axis is not None and not -tensor.dim() <= axis < tensor.dim():
            raise UsageError(
                f"batch_axis={axis}, but input tensor {number} has shape {list(tensor.shape)}; name one of its axes, "
                "or give one entry per input tensor with None where there is no batch."
            )
        axes.append(None if axis is None else axis % tensor.dim())
    sizes = {t.shape[d] for t, d in zip(tensors, axes, strict=True) if d is not None}
    if len(sizes) > 1 or 0 in sizes:
        shapes = ", ".join(str(list(t.shape)) for t in tensors)
        raise UsageError(
            f"batch_axis={batch_axis!r} has sizes {sorted(sizes)} in inputs of shapes {shapes}; the batch must be of "
            "one size: give one entry per input tensor, with None where there is no batch."
        )
    return InputAxes(tuple(axes))


def variants(axes: InputAxes, inputs: Arguments, takes: Callable[[Arguments], bool]) -> Iterator[Variant]:
    """The inputs as another number of examples, and in other lengths.

    Axes of equal size that are not the batch are changed together: tokens and their mask, height and width. Longer
    comes before shorter, as it shows what the given inputs do not reach.

    Args:
        takes: whether the original takes such inputs; what it refuses is left out.
    """
    if axes.batched:
        size = axes.size(inputs)
        for n in (size + 1, 1):
            changed = axes.resized(inputs, n)
            if n != size and takes(changed):
                yield Variant(f"a batch of {n}", *changed)
    for n in sorted({n for i, t in enumerate(input_tensors(*inputs)) for n in _lengths(t, axes.batch[i])}):
        for name, lengths in (("longer", (n + 1, n + 32, 2 * n)), ("shorter", (n - 1, n - 32, n // 2))):
            for length in lengths:
                changed = resized_axis(axes, inputs, n, max(length, 1))
                if length > 0 and takes(changed):
                    yield Variant(f"inputs that are {name}, {length} instead of {n}", *changed)
                    break


def _lengths(tensor: Tensor, batch: int | None) -> list[int]:
    return [n for d, n in enumerate(tensor.shape) if d != batch and n > 0]


def resized_axis(axes: InputAxes, inputs: Arguments, n: int, length: int) -> Arguments:
    """All axes of ``n`` indices that are not the batch with ``length`` indices, the given ones over and over."""
    places = {
        (i, d): [k % n for k in range(length)]
        for i, t in enumerate(input_tensors(*inputs))
        for d, size in enumerate(t.shape)
        if size == n and d != axes.batch[i]
    }
    return _taken(inputs, places)


def _taken(inputs: Arguments, places: dict[tuple[int, int], list[int]]) -> Arguments:
    """The indices ``places[i, d]`` along axis d of input tensor i, everything else as it is."""
    count = iter(range(len(input_tensors(*inputs))))

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        i = next(count)
        for d in range(leaf.dim()):
            positions = places.get((i, d))
            if positions is not None:
                leaf = leaf.index_select(d, torch.tensor(positions, dtype=torch.long, device=leaf.device))
        return leaf

    args, kwargs = pytree.tree_map(take, inputs)
    return args, kwargs
