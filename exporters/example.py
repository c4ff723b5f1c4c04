"""One call of a model, whatever it takes: positional and keyword arguments, nested, with what is no tensor among them.

Exporters, runtimes and checks work on its tensors, a flat tuple in the order of the arguments, and call the model with
others in their places.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from exporters.errors import ExporterUsageError

Path: TypeAlias = tuple[Any, ...]

#: What an exported program takes over as a constant.
_CONSTANTS = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


@dataclass(frozen=True)
class Example:
    """Arguments of one call: tensors, numbers, text, ``None``, and lists, tuples and dicts of them."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _flat(self) -> tuple[list[Any], Any]:
        return pytree.tree_flatten((self.args, dict(self.kwargs)))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor among the arguments, in their order."""
        return tuple(leaf for leaf in self._flat[0] if isinstance(leaf, Tensor))

    def with_tensors(self, tensors: Sequence[Tensor]) -> Example:
        """The same call with other tensors in the places of its own."""
        left = iter(tensors)
        leaves = [next(left) if isinstance(leaf, Tensor) else leaf for leaf in self._flat[0]]
        args, kwargs = pytree.tree_unflatten(leaves, self._flat[1])
        return Example(args, kwargs)

    def run(self, model: Callable[..., Any], tensors: Sequence[Tensor] | None = None) -> Any:
        """What the model returns for this call, or for the same with other tensors."""
        call = self if tensors is None else self.with_tensors(tensors)
        return model(*call.args, **call.kwargs)

    @property
    def is_one_tensor(self) -> bool:
        """Whether the call is ``model(tensor)``."""
        return len(self.args) == 1 and isinstance(self.args[0], Tensor) and not self.kwargs

    def bound(self, model: nn.Module) -> dict[str, Any]:
        """The arguments by the names that ``model.forward`` gives them; what ``*args`` catches is one tuple, what
        ``**kwargs`` catches one dict. Raises :class:`ExporterUsageError` if the forward does not take them."""
        try:
            return dict(inspect.signature(model.forward).bind(*self.args, **self.kwargs).arguments)
        except TypeError as error:
            raise ExporterUsageError(f"{type(model).__name__} does not take these example inputs: {error}.") from error

    def mapped(self, model: nn.Module, change: Callable[[int], Any]) -> dict[str, Any]:
        """``bound`` with ``change(i)`` in the place of the i-th tensor and ``None`` in that of everything else."""
        order = {id(leaf): i for i, leaf in enumerate(self._places.tensors)}
        return {
            name: pytree.tree_map(lambda leaf: change(order[id(leaf)]) if isinstance(leaf, Tensor) else None, value)
            for name, value in self._places.bound(model).items()
        }

    @cached_property
    def _places(self) -> Example:
        """The same call with tensors that are all different objects, so that each tells its own place."""
        return self.with_tensors([torch.empty(tensor.shape, device="meta") for tensor in self.tensors])

    def names(self, model: nn.Module) -> tuple[str, ...]:
        """A name for every tensor: that of the argument, with keys and positions where it is nested.

        ``input`` for the only tensor of ``model(tensor)``.
        """
        if self.is_one_tensor:
            return ("input",)
        order = {id(leaf): i for i, leaf in enumerate(self._places.tensors)}
        found = [""] * len(order)
        for name, value in self._places.bound(model).items():
            for path, leaf in pytree.tree_flatten_with_path(value)[0]:
                if isinstance(leaf, Tensor):
                    found[order[id(leaf)]] = "_".join([*_outer(name, value, model), *map(_key, path)])
        return tuple(_unique(found))

    def constants(self, model: nn.Module) -> list[str]:
        """What is no tensor and not ``None``, as ``name=value``: an exported file has it built in."""
        return [
            f"{'_'.join([*_outer(name, value, model), *map(_key, path)])}={leaf!r}"
            for name, value in self.bound(model).items()
            for path, leaf in pytree.tree_flatten_with_path(value)[0]
            if leaf is not None and not isinstance(leaf, Tensor)
        ]


def as_example(inputs: Any) -> Example:
    """What callers pass as ``example_inputs``: an :class:`Example`, one argument, or a tuple or list of arguments.

    Raises :class:`ExporterUsageError` where there is no tensor in it, or something that cannot be exported.
    """
    if isinstance(inputs, Example):
        found = inputs
    else:
        found = Example(tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,))
    strange = sorted({type(leaf).__name__ for leaf in found._flat[0] if not isinstance(leaf, (Tensor, *_CONSTANTS))})
    if strange or not found.tensors:
        kinds = dict.fromkeys(type(leaf).__name__ for leaf in found._flat[0])
        what = ", ".join(strange or kinds) or "nothing"
        raise ExporterUsageError(
            f"example_inputs holds {what}; pass a tensor or a tuple of arguments: tensors, beside them numbers, text "
            "and None, and lists, tuples and dicts of these (wrap the model for other arguments)."
        )
    return found


def _outer(name: str, value: Any, model: nn.Module) -> list[str]:
    """The name to begin with; the keys that ``**kwargs`` catches are names themselves."""
    parameter = inspect.signature(model.forward).parameters.get(name)
    caught = parameter is not None and parameter.kind is inspect.Parameter.VAR_KEYWORD
    return [] if caught and value else [name]


def _key(step: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(step, attribute):
            return str(getattr(step, attribute))
    return str(step)


def _unique(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found
