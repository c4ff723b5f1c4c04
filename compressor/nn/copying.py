"""Copies of whole networks, functions that were put on their modules included.

``copy.deepcopy`` copies bound methods and partials along with their modules, but takes a function for a constant. One
that closes over a module (``block.forward = lambda x: block.conv(x)``, a decorated forward, a hook) would go on
running the original's modules inside the copy. Such functions are made anew here, over the copied modules.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UnsupportedModelError
from compressor.nn.walk import every_module

_PLAIN = {type(None), bool, int, float, str}
_EMPTY = {dict, OrderedDict, set}
_REGISTERS = {"_parameters", "_buffers", "_modules"}


def deep_copy(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A copy of ``model``; what stands in ``memo`` under the identity of a part is taken for its copy.

    Raises:
        UnsupportedModelError: there is a part that cannot be copied.
    """
    memo = {} if memo is None else memo
    candidates: list[tuple[nn.Module, str, Any]] = []
    for module in every_module(model):
        for name, value in vars(module).items():
            kind = type(value)
            if kind in _PLAIN:
                continue
            if kind in _EMPTY and not value:  # a dozen for each module, and slow to copy
                memo.setdefault(id(value), kind())
            elif isinstance(value, Tensor):
                if not value.is_leaf:  # computed by a hook, and by the next forward again
                    memo.setdefault(id(value), value.detach())
            elif name not in _REGISTERS:
                candidates.append((module, name, value))
    try:
        copied = copy.deepcopy(model, memo)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be copied ({str(error).splitlines()[0]}); remove attributes that "
            "copy.deepcopy refuses, such as open files, locks or tensors with a history."
        ) from error
    rebinding = _Rebinding(model, memo)
    for module, name, value in candidates:
        twin = memo.get(id(module))
        if not isinstance(twin, nn.Module) or twin is module:
            continue
        if name in vars(twin) and rebinding.closes_over(value):
            vars(twin)[name] = rebinding.rebound(value)
    return copied


def skeleton(model: nn.Module) -> nn.Module:
    """Modules of the same classes, names and attributes, whose floating-point tensors hold no data; it does not run.

    Whole numbers are copied: edits look at them.
    """
    tensors: dict[int, Any] = {id(None): None}

    def bare(tensor: Tensor) -> Tensor:
        if id(tensor) not in tensors:
            kept = not (tensor.is_floating_point() or tensor.is_complex()) or tensor.layout is not torch.strided
            value = tensor.detach().clone() if kept else torch.empty_like(tensor, device="meta", requires_grad=False)
            tensors[id(tensor)] = nn.Parameter(value, False) if isinstance(tensor, nn.Parameter) else value
        found: Tensor = tensors[id(tensor)]
        return found

    twins: dict[int, nn.Module] = {}
    for module in every_module(model):
        twin: nn.Module = object.__new__(type(module))
        for name, value in vars(module).items():
            vars(twin)[name] = copy.copy(value) if isinstance(value, (dict, list, set)) else value
        twins[id(module)] = twin
    for twin in twins.values():
        for name, child in twin._modules.items():
            twin._modules[name] = None if child is None else twins[id(child)]
        for register in (twin._parameters, twin._buffers):
            for name, tensor in register.items():
                register[name] = None if tensor is None else bare(tensor)  # type: ignore[assignment]
    return twins[id(model)]


def same_tensors(model: nn.Module) -> nn.Module:
    """Modules of one's own over the very tensors of ``model``: what is put on them for a while, nobody else sees.

    Tensors that were made in inference mode are copied, as nothing can be trained or changed in place with them.
    """
    memo: dict[int, Any] = {
        id(tensor): _changeable(tensor) for tensor in (*model.parameters(), *model.buffers(), *_attributes(model))
    }
    return deep_copy(model, memo)


def _changeable(tensor: Tensor) -> Tensor:
    if not tensor.is_inference():
        return tensor
    copied = tensor.detach().clone()
    return nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied


def _attributes(model: nn.Module) -> list[Tensor]:
    """Tensors that are neither parameters nor buffers."""
    return [value for module in every_module(model) for value in vars(module).values() if isinstance(value, Tensor)]


_Container = (dict, list, tuple)


class _Rebinding:
    """Functions over the parts of one network, as functions over those of its copy."""

    def __init__(self, model: nn.Module, memo: dict[int, Any]) -> None:
        parts: list[nn.Module | Tensor] = [*every_module(model), *model.parameters(), *model.buffers()]
        self._own = {id(part) for part in parts}
        self._memo = memo
        self._made: dict[int, types.FunctionType] = {}

    def closes_over(self, value: Any) -> bool:
        """Whether there is a function in ``value`` that holds a part of the network."""
        return self._holds(value, set(), inside=False)

    def _holds(self, value: Any, seen: set[int], *, inside: bool) -> bool:
        if isinstance(value, (nn.Module, Tensor)):
            return inside and id(value) in self._own
        if not isinstance(value, (types.FunctionType, types.MethodType, functools.partial, *_Container)):
            return False
        if id(value) in seen:
            return False
        seen.add(id(value))
        inside = inside or isinstance(value, types.FunctionType)
        return any(self._holds(part, seen, inside=inside) for part in _parts(value))

    def rebound(self, value: Any) -> Any:
        """The same with every part of the network replaced by its copy."""
        if isinstance(value, types.FunctionType):
            return self._function(value) if self._holds(value, set(), inside=True) else value
        if isinstance(value, types.MethodType):
            return types.MethodType(self.rebound(value.__func__), self.rebound(value.__self__))
        if isinstance(value, functools.partial):
            keywords = {key: self.rebound(item) for key, item in value.keywords.items()}
            return functools.partial(self.rebound(value.func), *map(self.rebound, value.args), **keywords)
        if isinstance(value, dict) and self._holds(value, set(), inside=True):
            made = copy.copy(value)
            made.update({key: self.rebound(item) for key, item in value.items()})
            return made
        if type(value) in (list, tuple) and self._holds(value, set(), inside=True):
            return type(value)(map(self.rebound, value))
        return copy.deepcopy(value, self._memo) if id(value) in self._own else value

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        if id(function) in self._made:
            return self._made[id(function)]
        old = function.__closure__ or ()
        cells = tuple(types.CellType() for _ in old)
        made = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells or None)
        self._made[id(function)] = made  # before its parts: functions close over each other
        for cell, before in zip(cells, old, strict=True):
            if _is_filled(before):
                cell.cell_contents = self.rebound(before.cell_contents)
        made.__defaults__ = self.rebound(function.__defaults__)
        made.__kwdefaults__ = self.rebound(function.__kwdefaults__)
        made.__qualname__, made.__doc__, made.__module__ = function.__qualname__, function.__doc__, function.__module__
        made.__dict__.update({key: self.rebound(item) for key, item in vars(function).items()})
        return made


def _parts(value: Any) -> list[Any]:
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        return [*cells, value.__defaults__, value.__kwdefaults__, vars(value)]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return list(value.values()) if isinstance(value, dict) else list(value)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
