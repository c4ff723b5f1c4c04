"""Statistics at calls in half precision: as exact as in single precision, and of the type of the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.masks.sites import HANDLERS

CALLS: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "layer_norm": ("layer_norm", F.layer_norm, ((600,),), {"axes": 1, "axis": -1}),
    "rms_norm": ("rms_norm", F.rms_norm, ((600,),), {"axes": 1, "axis": -1}),
    "group_norm": ("group_norm", F.group_norm, (3,), {"groups": 3}),
    "batch_norm": ("batch_norm", F.batch_norm, (None, None, None, None, True), {"axis": -1}),
    "var": ("reduce", torch.var, (-1,), {"axis": -1, "operator": "var"}),
    "std_mean": ("reduce", torch.std_mean, (-1,), {"axis": -1, "operator": "std_mean"}),
    "mean": ("reduce", torch.mean, (-1,), {"axis": -1, "operator": "mean"}),
}


def tensors(found: Any) -> Iterator[Tensor]:
    yield from (found,) if isinstance(found, Tensor) else found


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 400.0], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_all_kept_is_the_programs_own_call(name: str, dtype: torch.dtype, scale: float, autocast: bool) -> None:
    kind, function, rest, options = CALLS[name]
    x = (scale * (0.5 + torch.randn(64, 600, generator=torch.Generator().manual_seed(1)))).to(dtype)
    x = x[None] if name == "batch_norm" else x  # whose axis 1 is not the one with masks
    mask = torch.ones(600, dtype=torch.float32 if autocast else dtype)
    with torch.autocast("cpu", dtype) if autocast else nullcontext():
        own = function(x, *rest)
        found = HANDLERS[kind](function, (x, *rest), {}, mask, options)
    expected = function(x.float(), *rest)
    for mine, its, exact in zip(tensors(found), tensors(own), tensors(expected), strict=True):
        assert name == "mean" or mine.dtype == its.dtype
        torch.testing.assert_close(mine, exact.to(mine.dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-3 * scale)
