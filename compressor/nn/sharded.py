"""Weights that ``torch.distributed.fsdp.fully_shard`` (FSDP2) spreads over processes; all that knows of it is here.

A parameter of such a model is at rest a share: a DTensor, of which each process holds a part. While a module runs, and
in its backward, it is whole: FSDP puts a plain parameter in the share's place. Shares are what the optimizer trains.
Whatever gathers or reshards here is collective: all processes call it, in the same order.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn.copying import deep_copy
from compressor.nn.walk import every_module, named_modules
from compressor.process.ranks import Ranks

_MADE_BY = "torch.distributed.fsdp"
_SUPPORTED = (["Shard"], ["Replicate", "Shard"])  # on one axis of processes, or on one of two (HSDP)
_MARKS = ("_is_fsdp", "_fsdp", "__composable_api_state_key")


def is_share(tensor: Any) -> bool:
    """Whether a tensor is spread over processes."""
    distributed = sys.modules.get("torch.distributed.tensor")
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def is_sharded(model: nn.Module) -> bool:
    """Whether ``fully_shard`` was called on the model or a part of it."""
    return any(is_fsdp(module) for module in every_module(model))


def is_fsdp(module: nn.Module) -> bool:
    """Whether ``fully_shard`` was called on the module itself."""
    fsdp = sys.modules.get(_MADE_BY)
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before ``fully_shard`` put one of its own in front."""
    kinds = type(module).__mro__
    if not is_fsdp(module):
        return kinds[0]
    return kinds[kinds.index(sys.modules[_MADE_BY].FSDPModule) + 1]


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a share; any other tensor itself."""
    return tensor.to_local() if is_share(tensor) else tensor  # type: ignore[attr-defined]


def operand(tensor: Tensor, other: Tensor) -> Tensor:
    """``other``, which is the same on all processes, as it can be multiplied into ``tensor``."""
    if not is_share(tensor):
        return other
    distributed: Any = sys.modules["torch.distributed.tensor"]
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    everywhere = [distributed.Replicate()] * mesh.ndim
    found: Tensor = distributed.DTensor.from_local(other, mesh, everywhere, run_check=False)
    return found


def whole(tensor: Tensor) -> Tensor:
    """All of a share, on every process; a tensor of its own. Any other tensor itself. Collective."""
    if not is_share(tensor):
        return tensor
    found: Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    part = own_part(tensor.detach())
    alias = found.untyped_storage().data_ptr() == part.untyped_storage().data_ptr()
    return found.clone() if alias else found


def at_rest(model: nn.Module, *, running: bool = False) -> dict[str, Tensor]:
    """Parameters by every name they have, all of them at rest. Collective.

    Args:
        running: whether this is called in the model's own forward, which goes on with whole parameters.
    """
    model.state_dict()  # puts every share back in its place, also in a forward, where ``reshard`` may not
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    if running and is_fsdp(model):
        model.unshard()  # type: ignore[operator]
    return found


def require_supported(
    model: nn.Module, parameters: Mapping[str, Tensor], known: Mapping[str, Tensor], ranks: Ranks, device: torch.device
) -> None:
    """Raise ``UsageError`` if masks cannot follow how a model was sharded.

    Args:
        parameters: at rest.
        known: the same before it was sharded.
        ranks: those that the session trains with.
        device: where masks are.
    """
    modules = dict(named_modules(model))
    inside = {name: any(is_fsdp(modules[name[:end]]) for end in _ends(name)) for name in parameters}
    for name, tensor in parameters.items():
        if not is_share(tensor):
            if not inside[name] and tensor is not known.get(name):
                raise UsageError(
                    f"{name} was replaced since compressor.prepare, while other parts of the model were sharded; "
                    "replace parameters before that, and call fully_shard on the prepared model itself."
                )
            continue
        mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
        if not inside[name] or [type(each).__name__ for each in placements] not in _SUPPORTED:
            raise UsageError(
                f"{name} is spread over a mesh {tuple(mesh.shape)} as {tuple(placements)}: by tensor parallelism "
                "(parallelize_module), or with a module around the prepared model. Masks cannot follow that; call "
                "fully_shard on the prepared model itself, on a mesh of data-parallel processes alone."
            )
    for name, tensor in parameters.items():
        if is_share(tensor):
            require_here(name, tensor, ranks.members, device)


def require_here(name: str, tensor: Any, group: list[int], device: torch.device) -> None:
    """Raise ``UsageError`` if a share is spread over other processes than ``group``, or kept on another device."""
    mesh, part = tensor.device_mesh, own_part(tensor)
    members = sorted(mesh.mesh.flatten().tolist())
    if members != sorted(group):
        raise UsageError(
            f"{name} is sharded over processes {members}, and the session trains with {sorted(group)}; pass "
            "process_group= of the same processes to compressor.prepare."
        )
    if part.device.type != mesh.device_type:
        raise UsageError(
            f"{name} is kept on {part.device.type} for a mesh on {mesh.device_type} (CPUOffloadPolicy), and cannot be "
            "gathered from there; call fully_shard without offload_policy."
        )
    if part.device.type != device.type:
        raise UsageError(
            f"{name} was moved to {part.device} when it was sharded, and masks are on {device}; move the model there "
            "before compressor.prepare."
        )


def _ends(name: str) -> list[int]:
    """Where the names of the modules around a parameter end in its own."""
    return [0, *(i for i, letter in enumerate(name) if letter == ".")]


def gathered(model: nn.Module, ranks: Ranks) -> nn.Module:
    """A plain copy of a sharded model: whole parameters, and modules of the classes that were sharded. Collective.

    What is not sharded (buffers, parameters that FSDP was to ignore) is that of the first process.
    """
    memo: dict[int, Any] = {}
    for tensor in at_rest(model).values():
        if is_share(tensor) and id(tensor) not in memo:
            memo[id(tensor)] = nn.Parameter(whole(tensor), tensor.requires_grad)
    spread = {id(copied) for copied in memo.values()}
    with _unmarked(model):
        found = deep_copy(model, memo)
    ranks.copy_([t for t in (*found.parameters(), *found.buffers()) if id(t) not in spread])
    return found


def become_(model: nn.Module, other: nn.Module) -> None:
    """Make a sharded model, but for its identity, the plain network ``other``."""
    model.__class__ = type(other)
    vars(model).clear()
    vars(model).update(vars(other))


@contextmanager
def _unmarked(model: nn.Module) -> Iterator[None]:
    """Inside, modules bear no trace of ``fully_shard`` but their shares: no class, no hook, no attribute."""
    undo: list[tuple[nn.Module, type[nn.Module], dict[str, Any]]] = []
    try:
        for module in every_module(model):
            space = vars(module)
            taken = {name: value for name, value in space.items() if name.startswith(_MARKS)}
            hooks = {name: value for name, value in space.items() if name.endswith(("_hooks", "_hooks_with_kwargs"))}
            strange = {key for each in hooks.values() for key, hook in each.items() if _is_made_by_fsdp(hook)}
            taken |= {name: each for name, each in hooks.items() if not strange.isdisjoint(each)}
            if not taken and not is_fsdp(module):
                continue
            undo.append((module, type(module), taken))
            module.__class__ = original_class(module)
            for name, value in taken.items():
                del space[name]
                if name in hooks:
                    space[name] = type(value)((k, hook) for k, hook in value.items() if k not in strange)
        yield
    finally:
        for module, kind, taken in undo:
            module.__class__ = kind
            vars(module).update(taken)


def _is_made_by_fsdp(hook: Any) -> bool:
    made_in = getattr(getattr(hook, "hook", hook), "__module__", None)
    return isinstance(made_in, str) and made_in.startswith(_MADE_BY)


_here = threading.local()


@contextmanager
def told_apart(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, ``is_exchanging`` says when FSDP computes around one of these modules."""
    changed: list[tuple[Any, int, Any]] = []
    try:
        for module in modules:
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key, hook in hooks.items():
                    if _is_made_by_fsdp(hook):
                        changed.append((hooks, key, hook))
                        hooks[key] = _telling(hook)
        yield
    finally:
        for hooks, key, hook in changed:
            if key in hooks:
                hooks[key] = hook


def is_exchanging() -> bool:
    """Whether what this thread computes is FSDP's own, not the program's."""
    return getattr(_here, "exchanging", False)


def _telling(hook: Any) -> Any:
    def run(*args: Any) -> Any:
        before, _here.exchanging = is_exchanging(), True
        try:
            return hook(*args)
        finally:
            _here.exchanging = before

    return run
