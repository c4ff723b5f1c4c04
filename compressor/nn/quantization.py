"""Networks that ``torch.ao.quantization`` prepared: quantisation is part of what they compute, observing is not.

A fake-quantised tensor is rounded to what its stored scale can hold. Observers beside that look at what passes and move
the scale, in evaluation mode, too. Traces and verifications must neither see that nor take part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from compressor.nn.walk import every_module


@contextmanager
def unobserved(*models: nn.Module) -> Iterator[None]:
    """Inside, observers do not look; what was never observed is not rounded, as there is no scale for it yet."""
    placed: list[dict[str, Any]] = []
    pending = list(models)
    try:
        while pending:
            module = pending.pop()
            pending += [child for child in module._modules.values() if child is not None]
            kind: Any = type(module)
            if _looks(kind) and "forward" not in vars(module):
                vars(module)["forward"] = _unobserved(module)
                placed.append(vars(module))
        yield
    finally:
        for space in placed:
            space.pop("forward", None)


def observes(model: nn.Module) -> bool:
    """Whether the model is prepared for quantisation: what it rounds has no slope by which one sees what matters."""
    kinds: set[Any] = {type(module) for module in every_module(model)}
    return any(map(_looks, kinds))


@cache
def _looks(kind: Any) -> bool:
    """Whether it is an observer, or a fake quantisation that runs as PyTorch's own."""
    from torch.ao.quantization import FakeQuantize, FusedMovingAvgObsFakeQuantize, ObserverBase

    known = FakeQuantize.forward, FusedMovingAvgObsFakeQuantize.forward
    return issubclass(kind, ObserverBase) or (issubclass(kind, FakeQuantize) and kind.forward in known)


def _unobserved(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module's forward without observing."""
    rounds = bool(getattr(module, "fake_quant_enabled", torch.zeros(1))[0] == 1)
    active = rounds and _has_observed(module.activation_post_process)  # type: ignore[arg-type]
    return partial(_rounded, module) if active else _as_it_is


def _has_observed(observer: nn.Module) -> bool:
    least = getattr(observer, "min_val", None)  # one whose scale is given has none
    return least is None or (least.numel() > 0 and bool(least.isfinite().all()))


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _rounded(module: Any, x: Tensor) -> Tensor:
    """What ``FakeQuantize`` returns once it has observed."""
    observer = module.activation_post_process
    least, most = int(observer.quant_min), int(observer.quant_max)
    if module.is_per_channel:
        axis = int(module.ch_axis)
        return torch.fake_quantize_per_channel_affine(x, module.scale, module.zero_point, axis, least, most)
    return torch.fake_quantize_per_tensor_affine(x, module.scale, module.zero_point, least, most)


def rounded_per_tensor(x: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Tensor:
    """``torch.fake_quantize_per_tensor_affine`` in any precision: PyTorch's wants scales in single."""
    steps: Tensor = (torch.round(x / scale) + zero_point).clamp(quant_min, quant_max) - zero_point
    rounded: Tensor = steps * scale
    return rounded


def rounded_per_channel(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    """``torch.fake_quantize_per_channel_affine``, likewise."""
    shape = [-1 if d == axis % x.dim() else 1 for d in range(x.dim())]
    return rounded_per_tensor(x, scale.reshape(shape), zero_point.reshape(shape), quant_min, quant_max)


def observe_anew_(model: nn.Module) -> None:
    """Let moving averages of activations begin again with the first batch that trains ``model``.

    They are those of the network that it was cut from, and would take hundreds of steps to forget it. Until then, and
    where observers are switched off, they stay: better a wide scale than none.
    """
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

    for name, module in model.named_modules():
        of_weight = name.rpartition(".")[2] == "weight_fake_quant"  # a weight is what it was
        kind: Any = type(module)
        if _looks(kind) and isinstance(module, FakeQuantize) and not of_weight:
            observer = module.activation_post_process
            if isinstance(observer, MovingAverageMinMaxObserver) and _forget not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_forget)


def _forget(module: Any, _: Any) -> None:
    """Runs before a forward; once in training, then never again."""
    if not module.training or "forward" in vars(module) or module.observer_enabled[0] != 1:
        return
    module.activation_post_process.reset_min_max_vals()
    for key, hook in list(module._forward_pre_hooks.items()):
        if hook is _forget:
            del module._forward_pre_hooks[key]
