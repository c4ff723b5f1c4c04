"""Optimizers and their parameter groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.errors import TrainingError
from compressor.train.config import TrainConfig
from compressor.train.hooks import Hooks


def model_groups(
    model: nn.Module, *, decay_norm_and_bias: bool = True, without: Iterable[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """The model's trainable parameters in groups, those of ``without`` left out.

    Unless ``decay_norm_and_bias``, parameters of fewer than two axes (biases, normalisation, layer scales) come in a
    group of their own with ``weight_decay`` 0.
    """
    excluded = {id(parameter) for parameter in without}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in excluded]
    if decay_norm_and_bias:
        groups: list[dict[str, Any]] = [{"params": trained}]
    else:
        groups = [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, config: TrainConfig, hooks: Hooks, groups: Sequence[dict[str, Any]] | None = None
) -> Optimizer | None:
    """The main optimizer over ``groups`` (the model's, unless given) and those of the hooks.

    Returns None if all parameters are the hooks' own optimizers' business.

    Raises:
        TrainingError: there is nothing to train at all.
    """
    of_hooks = [{"weight_decay": 0.0, **group, "params": list(group["params"])} for group in hooks.param_groups()]
    taken = [p for group in of_hooks for p in group["params"]]
    taken += [p for optimizer in hooks.optimizers().values() for p in optimizer_parameters(optimizer)]
    if groups is None:
        groups = model_groups(model, decay_norm_and_bias=config.decay_norm_and_bias, without=taken)
    every = [*({**group, "params": list(group["params"])} for group in groups), *of_hooks]
    if not every:
        if taken:
            return None
        raise TrainingError(
            "The model has no parameter that requires a gradient, so there is nothing to train; "
            "call requires_grad_(True) on what should be, or train for 0 epochs."
        )
    # One kernel for all parameters: a few percent of a step of a small network.
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for g in every for p in g["params"])
    if config.optimizer == "adamw":
        optimizer: Optimizer = torch.optim.AdamW(every, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    else:
        optimizer = torch.optim.SGD(
            every,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov and config.momentum > 0,
            weight_decay=config.weight_decay,
            fused=fused,
        )
        if fused and config.momentum:
            # The fused kernel refuses to start the momentum of one parameter (of a layer that was skipped before)
            # after that of others; to start all of them at zero comes to the same.
            optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for g in every for p in g["params"]})
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def optimizer_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """All parameters of an optimizer, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def has_gradients(optimizer: Optimizer) -> bool:
    """Whether any of an optimizer's parameters has a gradient."""
    return any(parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"])


def step_all(scaler: torch.amp.GradScaler, optimizers: Iterable[Optimizer], unscaled: Iterable[Optimizer] = ()) -> None:
    """Step all optimizers that have gradients, or, where some gradient overflowed, none: weights and masks go together.

    ``unscaled`` are those whose gradients had their scale taken out already.
    """
    ready = [optimizer for optimizer in optimizers if has_gradients(optimizer)]  # a scaler refuses one without any
    if scaler.is_enabled() and len(ready) > 1:
        for optimizer in ready:
            if all(optimizer is not other for other in unscaled):
                scaler.unscale_(optimizer)
        found = [torch.isfinite(p.grad).all() for o in ready for p in optimizer_parameters(o) if p.grad is not None]
        if not bool(torch.stack([each.to(found[0].device) for each in found]).all()):
            ready = []
    for optimizer in ready:
        scaler.step(optimizer)
    scaler.update()


def named_state(model: nn.Module, optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """What the optimizer remembers of each of the model's parameters (momentum, moments, steps), by its name."""
    return {name: dict(optimizer.state[p]) for name, p in model.named_parameters() if p in optimizer.state}


def load_named_state(model: nn.Module, optimizer: Optimizer, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Go on from what ``named_state`` gave, laid out in memory as each parameter is."""
    known = {id(parameter) for parameter in optimizer_parameters(optimizer)}
    for name, parameter in model.named_parameters():
        if id(parameter) in known and name in states:
            optimizer.state[parameter] = {key: laid_out(value, parameter) for key, value in states[name].items()}


def laid_out(value: Any, parameter: Tensor) -> Any:
    """A tensor of the parameter's shape with its strides: kernels for mixed strides may round differently."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
