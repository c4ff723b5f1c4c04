"""Masks on parameters that are whole only while their modules run (``nn.sharded``).

Before that there is nothing to multiply, so each is multiplied when a module reads it. ``nn.Module`` looks names up in
its dictionary of parameters, which for the length of a pass is one that gives products; what registers, lists or stores
parameters goes on seeing these. A product is made after FSDP has marked the inputs of its module, so in a backward it
is through before the gradients of that module's weights are reduced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from compressor.masks.part_stack import Place
from compressor.nn.sharded import is_share
from compressor.nn.swap import flat_weights


class Factor(NamedTuple):
    """One mask or gate on a parameter: which, of the tensors of a pass, and its shape beside the parameter."""

    which: int
    shape: tuple[int, ...]


class Reading(NamedTuple):
    """A parameter that is multiplied when it is read."""

    place: Place
    factors: tuple[Factor, ...]


class _Parameters(dict[str, Any]):
    """A module's parameters; items are as they are, lookups by name give them with their masks.

    Nothing is computed before a lookup: a backward brings masks back with gradients off, and runs modules with them on.
    """

    masks: dict[str, list[tuple[Tensor, tuple[int, ...]]]]

    def __getitem__(self, name: str) -> Any:
        tensor = super().__getitem__(name)
        if name not in self.masks or tensor is None or is_share(tensor):  # of a share, shape and type are asked at most
            return tensor
        for mask, shape in self.masks[name]:
            tensor = tensor * mask.to(tensor.dtype).reshape(shape)
        return tensor


@contextmanager
def read_masked(readings: Sequence[Reading], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Inside, modules read these parameters multiplied by their factors, which are among ``tensors``."""
    spaces: dict[int, tuple[dict[str, Any], dict[str, list[tuple[Tensor, tuple[int, ...]]]]]] = {}
    for (space, attribute), factors in readings:
        _, masks = spaces.setdefault(id(space), (space, {}))
        masks[attribute] = [(tensors[which], shape) for which, shape in factors]
    placed: list[tuple[dict[str, Any], dict[str, Any], _Parameters]] = []
    try:
        for space, masks in spaces.values():
            before = space["_parameters"]
            found = _Parameters(before.items())
            found.masks = masks
            space["_parameters"] = found
            placed.append((space, before, found))
        yield
    finally:
        for space, before, found in reversed(placed):
            before.clear()
            before.update(found.items())  # whole or a share, as FSDP has left it
            space["_parameters"] = before


@contextmanager
def filled_when_run(modules: Sequence[nn.RNNBase]) -> Iterator[None]:
    """Inside, recurrent modules look anew at what their weights are whenever they run, as they keep a list of them."""
    with ExitStack() as stack:
        for module in modules:
            space, forward = vars(module), module.forward
            before = space.get("forward")
            space["forward"] = _filling(module, forward)
            stack.callback(_put_back, space, before)
        yield


def _filling(module: nn.RNNBase, forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        with flat_weights([module]):
            return forward(*args, **kwargs)

    return run


def _put_back(space: dict[str, Any], before: Any) -> None:
    if before is None:
        space.pop("forward", None)
    else:
        space["forward"] = before
