"""Run a forward in float64 throughout, whatever precision it asks for inside.

Forwards make tensors of the default type (``torch.zeros``) and cast to float32 for a normalisation or a rotation. In a
verification that would be noise of 1e-7, or an error about mixed types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from compressor.quantization import rounded_per_channel, rounded_per_tensor
from compressor.trim.grouped import grouped_mm

_DOUBLE = {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64,
           torch.complex64: torch.complex128, torch.complex32: torch.complex128}  # fmt: skip
_CASTS = {Tensor.float: torch.float64, Tensor.half: torch.float64, Tensor.bfloat16: torch.float64,
          **{getattr(Tensor, name): torch.complex128 for name in ("cfloat", "chalf")}}  # fmt: skip


_IN_ANY_PRECISION: dict[Any, Callable[..., Any]] = {
    torch.fake_quantize_per_tensor_affine: rounded_per_tensor,
    torch.fake_quantize_per_channel_affine: rounded_per_channel,
    **{f: grouped_mm for f in (getattr(functional, "grouped_mm", None), getattr(torch, "_grouped_mm", None)) if f},
}


def precise(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of real numbers as ``dtype``, one of complex numbers as the complex type of two such; others as they
    are."""
    if tensor.is_complex():
        return tensor.to(dtype.to_complex())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


class _InDouble(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CASTS:
            return args[0].to(_CASTS[func])
        run = _IN_ANY_PRECISION.get(func, func)
        args = tuple(_DOUBLE.get(a, a) if type(a) is torch.dtype else a for a in args)
        changed = {k: _DOUBLE.get(v, v) if type(v) is torch.dtype else v for k, v in (kwargs or {}).items()}
        return run(*args, **changed)


@contextmanager
def in_double(active: bool = True) -> Iterator[None]:
    """Inside, new tensors are float64 and casts to a shorter floating-point type give float64."""
    if not active:
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _InDouble():
            yield
    finally:
        torch.set_default_dtype(before)
