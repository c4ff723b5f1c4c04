"""Inputs for tracing and checking, and outputs as a flat list, whatever the model returns."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from exporters.errors import ExporterUsageError


def as_tuple(example_inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``example_inputs`` as a tuple of tensors. Raises :class:`ExporterUsageError` for anything else."""
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    wrong = [type(value).__name__ for value in inputs if not isinstance(value, Tensor)]
    if wrong or not inputs:
        found = ", ".join(wrong) or "nothing"
        raise ExporterUsageError(
            f"example_inputs holds {found}; pass a tensor or a tuple of tensors (wrap the model for other arguments)."
        )
    return inputs


def batch_axes(inputs: Sequence[Tensor]) -> tuple[bool, ...]:
    """Which inputs have the batch as their axis 0: those whose first size is that of the first input."""
    if inputs[0].ndim == 0:
        return tuple(False for _ in inputs)
    return tuple(value.ndim > 0 and value.shape[0] == inputs[0].shape[0] for value in inputs)


def dynamic_shapes(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
    """What ``torch.export`` wants as ``dynamic_shapes``: axis 0 free for every input that has a batch axis.

    The structure follows the signature of ``forward``: arguments caught by ``*args`` form a tuple of their own.
    """
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} if batched else None for batched in batch_axes(inputs))
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return shapes
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:named], shapes[named:]) if len(shapes) > named else shapes


def random_inputs(
    example_inputs: Sequence[Tensor], batch: int | None = None, *, seed: int = 0, device: torch.device | None = None
) -> tuple[Tensor, ...]:
    """Random inputs shaped like the example, with another batch size if given.

    Floating-point values are normal and never zero (zeros take short cuts in arithmetic and hide errors). Integer and
    boolean values are drawn from the example's own, because only those are known to be valid indices.
    """
    generator = torch.Generator().manual_seed(seed)
    result = []
    for value, batched in zip(example_inputs, batch_axes(example_inputs), strict=True):
        shape = (batch, *value.shape[1:]) if batched and batch is not None else tuple(value.shape)
        if value.is_floating_point():
            drawn = torch.randn(shape, generator=generator)
            drawn = drawn + torch.where(drawn < 0, -1e-3, 1e-3)
        elif value.is_complex():
            raise ExporterUsageError("A complex input cannot be exported; pass real and imaginary parts.")
        else:
            values = value.detach().cpu().flatten()
            drawn = values[torch.randint(values.numel(), shape, generator=generator)]
        result.append(drawn.to(dtype=value.dtype, device=device if device is not None else value.device))
    return tuple(result)


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
