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
from torch.overrides import TorchFunctionMode

_SINGLE = {torch.float32, torch.float16, torch.bfloat16}
_CASTS = {Tensor.float, Tensor.half, Tensor.bfloat16}


class _InDouble(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CASTS:
            return args[0].double()
        args = tuple(torch.float64 if type(a) is torch.dtype and a in _SINGLE else a for a in args)
        changed = {
            k: torch.float64 if type(v) is torch.dtype and v in _SINGLE else v for k, v in (kwargs or {}).items()
        }
        return func(*args, **changed)


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
