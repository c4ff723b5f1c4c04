"""Images channels last: the same numbers in memory in the order that convolutions run fastest in.

Only inputs are laid out anew; the layout spreads through the operators, and the model's weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compressor.train.rng import isolated_rng
from compressor.train.splits import Forward


def accepts_channels_last(model: nn.Module, inputs: Any, forward: Forward) -> bool:
    """Whether there are images (N, C, H, W) in ``inputs`` and ``forward(model, inputs)`` runs with them channels last.

    A model may not: ``view`` on an activation refuses the layout. Tried on two samples, in the modes that the model
    is in; buffers and random generators are put back. The answer depends on the model and the shapes alone.
    """
    if not _has_images(inputs):
        return False
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with isolated_rng(), torch.no_grad():
            forward(model, channels_last(_head(inputs)))
    except (RuntimeError, ValueError):
        return False  # if it fails with any layout, the caller's own forward pass says so
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
    return True


def channels_last(value: Any) -> Any:
    """``value`` with all images in it, (N, C, H, W), laid out channels last."""
    return _map(value, lambda t: _last(t) if t.ndim == 4 else t)


def _last(images: Tensor) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = images.shape
    if channels > 1:
        return images
    # With one channel both layouts are the same numbers in the same order, and PyTorch takes them for channels first.
    return images.as_strided(images.shape, (height * width, 1, width, 1))


def copied_to_device(value: Any, device: torch.device) -> Any:
    """``value`` with copies on ``device`` of all tensors in it: a forward may change what it is given in place. A copy
    wants gradients if its original does, which gets none itself."""
    return _map(
        value,
        lambda t: t.detach().to(device, non_blocking=True, copy=True).requires_grad_(t.requires_grad),
    )


def _head(value: Any) -> Any:
    return _map(value, lambda tensor: (tensor[:2] if tensor.ndim else tensor).clone())


def _has_images(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 4
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(_has_images(item) for item in items)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Tensors in nested tuples, lists and dicts changed, everything else as it was."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_map(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
