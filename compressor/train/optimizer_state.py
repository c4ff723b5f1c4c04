"""An optimizer goes on with the small network: what it remembers of each weight is sliced as the weight is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.architecture.architecture import Architecture
from compressor.errors import UsageError
from compressor.train.optim import laid_out, optimizer_parameters


def carry_(optimizer: Optimizer, original: nn.Module, small: nn.Module, architecture: Architecture) -> None:
    """Let ``optimizer`` train the parameters of ``small`` instead of those of ``original`` they came from, in place.

    Groups stay, with their settings, as schedulers know them by their places; what went leaves its group. Parameters
    that are not the original's stay as they are.

    Raises:
        UsageError: it has none of the original's parameters, or remembers something that cannot be sliced. Nothing is
            changed then.
    """
    before = dict(original.named_parameters())
    names = {id(p): name for name, p in before.items()}
    if not any(id(p) in names for p in optimizer_parameters(optimizer)):
        raise UsageError(
            f"The {type(optimizer).__name__} has no parameter of the model that the session was prepared with; pass "
            "the one of the loop, once."
        )
    after: dict[str, nn.Parameter] = {}
    for name, parameter in small.named_parameters(remove_duplicate=False):
        after.setdefault(architecture.first_name(name), parameter)
    states: dict[Tensor, Any] = {}
    for held, state in optimizer.state.items():
        name = names.get(id(held), "")
        if not name:
            states[held] = state
        elif name in after:
            new = after[name]
            states[new] = {
                key: laid_out(_sliced(value, key, name, held, architecture, optimizer), new)
                for key, value in state.items()
            }
    optimizer.state.clear()
    optimizer.state.update(states)
    for group in optimizer.param_groups:
        stays = [id(p) not in names or names[id(p)] in after for p in group["params"]]
        for key in ("params", "param_names"):
            if key in group:
                group[key] = [each for each, stay in zip(group[key], stays, strict=True) if stay]
        group["params"] = [after[names[id(p)]] if id(p) in names else p for p in group["params"]]


def _sliced(
    value: Any, key: str, name: str, parameter: Tensor, architecture: Architecture, optimizer: Optimizer
) -> Any:
    """What is left of one entry of a parameter's state: of a moment its part, of a count the count."""
    if not isinstance(value, Tensor):
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise _unknown(value, key, name, optimizer)
    if value.numel() <= 1 and parameter.numel() > 1:
        return value.clone()
    axes = _axes(value, key, parameter)
    if axes is None:
        raise _unknown(value, key, name, optimizer)
    found = value.detach()
    for axis, indices in architecture.indices.get(name, {}).items():
        place = axes.index(axis) if axis in axes else None
        if place is not None and found.shape[place] == parameter.shape[axis]:
            found = found.index_select(place, torch.tensor(indices, device=found.device))
    return found.clone()


def _axes(value: Tensor, key: str, parameter: Tensor) -> list[int] | None:
    """Which axes of the parameter a tensor has: all, some of length 1, or, of a factored moment, all but one."""
    every, shape = list(range(parameter.dim())), tuple(parameter.shape)
    if value.dim() == parameter.dim() and all(n in (1, m) for n, m in zip(value.shape, shape, strict=True)):
        return every
    if parameter.dim() < 2 or value.dim() != parameter.dim() - 1:
        return None
    kinds = [("row", every[:-1]), ("col", [*every[:-2], every[-1]])]
    fitting = [(kind, axes) for kind, axes in kinds if tuple(shape[a] for a in axes) == tuple(value.shape)]
    named = [axes for kind, axes in fitting if kind in key] or [axes for _, axes in fitting if len(fitting) == 1]
    return named[0] if named else None


def _unknown(value: Any, key: str, name: str, optimizer: Optimizer) -> UsageError:
    kind = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    return UsageError(
        f"{type(optimizer).__name__} remembers '{key}' ({kind}) of {name}, which is not laid out as the weight is, so "
        "it cannot go on with the small network; make a new optimizer over small.parameters()."
    )
