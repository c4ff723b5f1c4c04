"""Tensors of whole models: where they are, taken out, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from exporters.example import Example

Region = Mapping[int, Tensor | tuple[int, int]]
"""A part of a tensor: by axis the indices, or start and length; axes that it does not name are whole."""


def part(tensor: Tensor, region: Region) -> Tensor:
    """What of ``tensor`` lies in the region."""
    for axis, index in region.items():
        tensor = tensor.narrow(axis, *index) if isinstance(index, tuple) else tensor.index_select(axis, index)
    return tensor


def laid_out_like(tensor: Tensor, part: Tensor) -> Tensor:
    """``part``, of as many axes as ``tensor``, with its axes in the same order in memory."""
    if part.dim() != tensor.dim() or tensor.layout is not torch.strided or part.layout is not torch.strided:
        return part
    strides, step = [0] * part.dim(), 1
    for d in sorted(range(part.dim()), key=lambda d: (tensor.stride(d), -d)):
        strides[d], step = step, step * max(part.shape[d], 1)
    if tuple(strides) == part.stride():
        return part
    return torch.empty_strided(part.shape, strides, dtype=part.dtype, device=part.device).copy_(part)


def state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by their first name, on the CPU; tied ones once."""
    found: dict[str, Tensor] = {n: p.detach().cpu() for n, p in model.named_parameters()}
    found.update({n: b.detach().cpu() for n, b in model.named_buffers()})
    return found


def fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy what ``state`` returned into a model of the same shapes."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in tensors:
                tensor.copy_(tensors[name])


def example_of(example_inputs: Any, example_kwargs: Mapping[str, Any] | None = None) -> Example:
    """The whole call that ``example_inputs`` and ``example_kwargs`` stand for."""
    if isinstance(example_inputs, Example):
        return Example(example_inputs.args, {**example_inputs.kwargs, **(example_kwargs or {})})
    args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    return Example(args, dict(example_kwargs or {}))


def to_device(value: Any, device: torch.device) -> Any:
    """Every tensor in ``value`` on ``device``. Raises ``UsageError`` for one without values (on the meta device)."""
    from torch.utils import _pytree as pytree

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.is_meta and device.type != "meta":
            raise UsageError(
                f"A tensor of shape {list(leaf.shape)} is on the meta device and has no values; make it on {device}."
            )
        return leaf.to(device)

    return pytree.tree_map(moved, value)


def resolve_device(name: str) -> torch.device:
    """``auto`` is the GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def not_finite(model: nn.Module) -> list[str]:
    """Names of parameters with NaN or infinite values, and of buffers with NaN (masks of attention are infinite)."""
    tensors = [(name, p.detach(), True) for name, p in model.named_parameters() if p.is_floating_point()]
    tensors += [(name, b, False) for name, b in model.named_buffers() if b.is_floating_point()]
    lost = [(~torch.isfinite(t) if bounded else torch.isnan(t)).any() for _, t, bounded in tensors if t.numel()]
    names = [name for name, t, _ in tensors if t.numel()]
    where = lost[0].device if lost else None
    found = torch.stack([each.to(where) for each in lost]).tolist() if lost else []
    return [name for name, is_lost in zip(names, found, strict=True) if is_lost]


def selection(index: list[int], device: torch.device) -> Tensor | tuple[int, int]:
    """What is cheapest to slice by: start and length where the indices are in one piece."""
    if index and index[-1] - index[0] == len(index) - 1:
        return index[0], len(index)
    return torch.tensor(index, device=device)
