"""Networks that ``torch.ao.quantization`` prepared: quantisation is part of what they compute, observing is not.

A fake-quantised tensor is rounded to what its stored scale can hold. Observers beside that look at what passes and move
the scale, in evaluation mode, too. Traces and verifications must neither see that nor take part in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def unobserved(*models: nn.Module) -> Iterator[None]:
    """Inside, observers do not look; what was never observed is not rounded, as there is no scale for it yet."""
    placed: list[dict[str, Any]] = []
    try:
        for module in (module for model in models for module in model.modules()):
            run = _unobserved(module)
            if run is not None and "forward" not in vars(module):
                vars(module)["forward"] = run
                placed.append(vars(module))
        yield
    finally:
        for space in placed:
            space.pop("forward", None)


def _unobserved(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The forward of an observer or of a fake quantisation without observing; ``None`` for any other module."""
    fake = sys.modules.get("torch.ao.quantization.fake_quantize")
    if fake is None:  # then no module can be one
        return None
    from torch.ao.quantization.observer import ObserverBase

    if isinstance(module, ObserverBase):
        return _as_it_is
    if isinstance(module, fake.FakeQuantize):
        if type(module).forward not in (fake.FakeQuantize.forward, fake.FusedMovingAvgObsFakeQuantize.forward):
            return None
        active = bool(module.fake_quant_enabled[0] == 1) and _has_observed(module.activation_post_process)
        return partial(_rounded, module) if active else _as_it_is
    return None


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
