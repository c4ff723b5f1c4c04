"""Inputs for tracing and checking, and outputs as a flat list, whatever the model returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from exporters.errors import ExporterUsageError


def batch_axes(inputs: Sequence[Tensor]) -> tuple[bool, ...]:
    """Which inputs have the batch as their axis 0: those whose first size is that of the first input."""
    if inputs[0].ndim == 0:
        return tuple(False for _ in inputs)
    return tuple(value.ndim > 0 and value.shape[0] == inputs[0].shape[0] for value in inputs)


def random_inputs(
    example: Sequence[Tensor],
    batch: int | None = None,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    sizes: Sequence[Mapping[int, int]] | None = None,
) -> tuple[Tensor, ...]:
    """Random inputs shaped like the example, with another batch size if given.

    Floating-point values are normal and never zero (zeros take short cuts in arithmetic and hide errors), and positive
    where the example has no negative ones. Integers are drawn from the example's own, because only those are known to
    be valid indices. Masks (true and false, 0 and 1, infinities) keep their rows as they are.

    Args:
        sizes: per tensor, other sizes by axis.
    """
    generator = torch.Generator().manual_seed(seed)
    result = []
    for i, (value, batched) in enumerate(zip(example, batch_axes(example), strict=True)):
        wanted = {**({0: batch} if batched and batch is not None else {}), **(sizes[i] if sizes is not None else {})}
        shape = tuple(wanted.get(axis, n) for axis, n in enumerate(value.shape))
        if value.is_complex():
            raise ExporterUsageError("A complex input cannot be exported; pass real and imaginary parts.")
        given = value.detach().cpu()
        if is_mask(given):
            drawn = _rows(given, shape, generator, mixed=batched)
        elif value.is_floating_point():
            drawn = torch.randn(shape, generator=generator)
            drawn = drawn + torch.where(drawn < 0, -1e-3, 1e-3)
            drawn = drawn.abs() if value.numel() and bool((given > 0).all()) else drawn
        else:
            values = given.flatten()
            drawn = values[torch.randint(max(values.numel(), 1), shape, generator=generator)]
        result.append(drawn.to(dtype=value.dtype, device=device if device is not None else value.device))
    return tuple(result)


def is_mask(value: Tensor) -> bool:
    """Whether values say what counts and what does not: true and false, 0 and 1, or numbers and infinities."""
    if value.dtype is torch.bool:
        return True
    if not value.numel() or value.ndim == 0:
        return False
    if value.is_floating_point():
        infinite = torch.isinf(value)
        if bool(infinite.any()):
            return True
    ones, zeros = value == 1, value == 0
    return bool((ones | zeros).all()) and bool(ones.any()) and (not value.is_floating_point() or bool(zeros.any()))


def _rows(value: Tensor, shape: tuple[int, ...], generator: torch.Generator, *, mixed: bool) -> Tensor:
    """The example's own entries along every axis, repeated or cut to ``shape``; along the batch in any order."""
    for axis, size in enumerate(shape):
        n = value.shape[axis]
        if axis == 0 and mixed and n:
            index = torch.randint(n, (size,), generator=generator)
        elif size != n:
            index = torch.arange(size) % max(n, 1)
        else:
            continue
        value = value.index_select(axis, index)
    return value.clone()


def flatten_outputs(output: object, name: str = "output") -> list[tuple[str, Tensor]]:
    """Every tensor of a model's output with a name, in the order in which exporters list them.

    Mappings and named tuples give their keys as names, other sequences their positions; what is no tensor is left out.
    """
    if isinstance(output, Tensor):
        return [(name, output)]
    if isinstance(output, Mapping):
        items = [(str(key), value) for key, value in output.items()]
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        items = list(zip(output._fields, output, strict=True))
    elif isinstance(output, (list, tuple)):
        items = [(f"{name}_{index}", value) for index, value in enumerate(output)]
    elif type(output) in pytree.SUPPORTED_NODES:  # what others taught PyTorch to take apart, such as caches
        leaves = pytree.tree_leaves(output)
        items = [(f"{name}_{index}", value) for index, value in enumerate(leaves) if isinstance(value, Tensor)]
    else:
        return []
    return [pair for key, value in items for pair in flatten_outputs(value, key)]


def model_device(model: nn.Module) -> torch.device:
    """Device of the first parameter or buffer; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def model_precision(model: nn.Module) -> str:
    """The floating-point precision of the parameters: "fp32", "fp16" or "bf16"."""
    names = {torch.float16: "fp16", torch.bfloat16: "bf16"}
    return next((names[p.dtype] for p in model.parameters() if p.dtype in names), "fp32")


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Every submodule in eval mode inside, and back in its own mode outside."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
