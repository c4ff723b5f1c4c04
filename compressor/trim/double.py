"""Run a forward in one precision throughout, whatever it asks for inside.

Forwards make tensors of the default type (``torch.zeros``), hold tables that are no buffers, and cast to float32 for a
normalisation or a rotation. In a verification that would be noise of 1e-7, or an error about mixed types. The default
type of PyTorch is one for all threads, so it is left alone: functions are watched instead, which each thread does for
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from compressor.nn.quantization import rounded_per_channel, rounded_per_tensor
from compressor.trim.grouped import grouped_mm

_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
_SHORTER = {
    torch.float64: {torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex32},
    torch.float32: {torch.float16, torch.bfloat16, torch.complex32},
}
_REAL_CASTS = {Tensor.float, Tensor.half, Tensor.bfloat16}
_COMPLEX_CASTS = {getattr(Tensor, name) for name in ("cfloat", "chalf")}
_RANDOM = {torch.rand, torch.randn, torch.normal}
_ARITHMETIC = {
    *("add", "sub", "mul", "div", "true_divide", "divide", "pow", "sqrt", "rsqrt", "exp", "log", "log2", "sin", "cos"),
    *("tanh", "sigmoid", "reciprocal", "__pow__", "__rpow__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__"),
    *("__add__", "__radd__", "__sub__", "__rsub__", "__rdiv__", "multiply", "rsub"),
}


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


class InPrecision(TorchFunctionMode):
    """Inside, floating-point tensors that are made or used are of type ``dtype`` where they would be shorter, complex
    ones of that of its kind."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self._shorter = dtype, _SHORTER.get(dtype, set())

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, func = kwargs or {}, _IN_ANY_PRECISION.get(func, func)
        if not self._shorter:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if func in _REAL_CASTS:
            return args[0].to(self.dtype)
        if func in _COMPLEX_CASTS:
            return args[0].to(_COMPLEX[self.dtype])
        if name in ("__get__", "__set__"):
            return func(*args, **kwargs)
        changes = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
        first = args[:1] if changes else tuple(map(self._argument, args[:1]))  # what is changed is no copy
        args = (*first, *map(self._argument, args[1:]))
        kwargs = {key: value if key == "out" else self._argument(value) for key, value in kwargs.items()}
        if func in _RANDOM and kwargs.get("dtype") is None and "out" not in kwargs:
            kwargs["dtype"] = self.dtype  # drawn in another precision these would be other numbers
        result = func(*args, **kwargs)
        if changes:
            return result
        if isinstance(result, Tensor) and result.dtype in self._shorter:
            if name in _ARITHMETIC:  # of integers
                args = tuple(a.to(self.dtype) if isinstance(a, Tensor) else a for a in args)
                return self._longer(func(*args, **kwargs))
            if name in ("arange", "full", "linspace", "tensor") and kwargs.get("dtype") is None:
                return func(*args, **{**kwargs, "dtype": self._longer_type(result.dtype)})
        return self._result(result)

    def _longer_type(self, dtype: torch.dtype) -> torch.dtype:
        return _COMPLEX[self.dtype] if dtype.is_complex else self.dtype

    def _longer(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._longer_type(tensor.dtype)) if tensor.dtype in self._shorter else tensor

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._longer(value)
        if type(value) is torch.dtype:
            return self._longer_type(value) if value in self._shorter else value
        if type(value) in (list, tuple) and any(isinstance(item, Tensor) for item in value):
            return type(value)(map(self._argument, value))
        return value

    def _result(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._longer(value)
        if type(value) in (list, tuple) and any(isinstance(item, Tensor) for item in value):
            return type(value)(map(self._result, value))
        return value
