"""What modules see in place of their own tensors and numbers for the length of one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from compressor.nn.walk import every_module, named_modules


@contextmanager
def swapped_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module] | None = None
) -> Iterator[None]:
    """Let modules have other tensors under the names of their parameters and buffers.

    They stand where modules keep theirs, so that a forward that lists its parameters, calls a module with parameters of
    its own (``torch.func.functional_call``) or assigns a buffer does with them what it does with the model's.
    """
    placed: list[tuple[dict[str, Any], str, Any]] = []
    modules = dict(named_modules(model)) if modules is None else modules
    try:
        for name, tensor in tensors.items():
            owner, _, attribute = name.rpartition(".")
            space = registry(modules[owner], attribute)
            placed.append((space, attribute, space.get(attribute)))
            space[attribute] = tensor
        with flat_weights(modules.values()):
            yield
    finally:
        for space, attribute, before in reversed(placed):
            space[attribute] = before


@contextmanager
def own_copies(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Inside, the model has copies of these parameters and buffers, for a forward that changes them in place."""
    copies: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    modules = dict(named_modules(model))
    for name in names:
        owner, _, attribute = name.rpartition(".")
        tensor = registry(modules[owner], attribute)[attribute]
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.detach().clone()
        found[name] = copies[id(tensor)]
    with swapped_tensors(model, found, modules):
        yield


def registry(module: nn.Module, attribute: str) -> dict[str, Any]:
    """Where a module keeps the parameter or buffer of this name."""
    return module._buffers if attribute in module._buffers else module._parameters


@contextmanager
def flat_weights(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Recurrent modules keep a list of their weights: inside, it is filled with what the names stand for."""
    recurrent = [module for module in modules if isinstance(module, nn.RNNBase)]
    saved = [module._flat_weights for module in recurrent]
    for module in recurrent:
        module.__dict__["_flat_weights"] = [getattr(module, name) for name in module._flat_weights_names]
    try:
        yield
    finally:
        for module, before in zip(recurrent, saved, strict=True):
            module.__dict__["_flat_weights"] = before


_NOTHING: dict[str, Any] = {}


@contextmanager
def unchanged(*models: nn.Module) -> Iterator[None]:
    """Undo what a forward stores in its modules: cached tables and masks, made for other inputs or another type, and
    hooks. What it stores in a module's own dictionaries, lists and sets is undone, too."""
    saved = [
        (m, dict(vars(m)), [(d, dict(d) if d else _NOTHING) for d in _registered(m)], _own_containers(m))
        for m in every_module(*models)
    ]
    try:
        yield
    finally:
        for module, attributes, registered, containers in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for current, before in registered:
                if current or before:
                    current.clear()
                    current.update(before)
            for container, content in containers:
                _refill(container, content)


_EVERY_MODULES = frozenset(vars(nn.Module()))
_CONTAINERS = (dict, list, set)
_MOST = 1000  # containers of one module, and items of a container: what holds more is data


def _own_containers(module: nn.Module) -> list[tuple[Any, Any]]:
    """The containers that a module keeps beside those of every module, and copies of them."""
    found: list[tuple[Any, Any]] = []
    space = vars(module)
    pending = [space[name] for name in space.keys() - _EVERY_MODULES]
    while pending and len(found) < _MOST:
        value = pending.pop()
        if type(value) in _CONTAINERS and len(value) <= _MOST:
            found.append((value, value.copy()))
            pending += value.values() if type(value) is dict else value
    return found


def _refill(container: Any, content: Any) -> None:
    """In place, and not at all where nothing changed: other threads may read it."""
    if type(container) is set:
        same = container == content
    else:
        same = len(container) == len(content) and all(a is b for a, b in zip(container, content, strict=True))
        if type(container) is dict:
            same = same and all(a is b for a, b in zip(container.values(), content.values(), strict=True))
    if same:
        return
    container.clear()
    if type(container) is list:
        container.extend(content)
    else:
        container.update(content)


def _registered(module: nn.Module) -> tuple[dict[str, Any], ...]:
    hooks = module._forward_hooks, module._forward_pre_hooks, module._forward_hooks_with_kwargs
    return (module._buffers, module._parameters, module._modules, *hooks, module._forward_pre_hooks_with_kwargs)  # type: ignore[return-value]
