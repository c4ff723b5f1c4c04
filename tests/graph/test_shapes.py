"""Quick results on meta tensors are PyTorch's: same shapes, strides and types, and nothing where PyTorch raises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressor.graph.recording.meta_shapes import quick_result

aten = torch.ops.aten
FLOATS = (torch.float32, torch.float64, torch.float16)
sizes = st.integers(1, 6)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def described(result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        return [described(r) for r in result]
    return tuple(result.shape), result.stride(), result.dtype, result.is_meta


def agrees(name: str, overload: Any, *args: Any, answered: bool | None = None) -> None:
    """The quick result is PyTorch's or none; PyTorch is asked first, as an in-place operator may fail."""
    try:
        expected = described(overload(*args))
    except (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError):
        expected = None
    quick = quick_result(name, args, {})
    if answered is not None:
        assert (quick is not None) == answered
    if quick is not None:
        assert described(quick) == expected


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "tanh",
                                  "elu", "leaky_relu", "softplus", "mish"])  # fmt: skip
def test_unary(name: str, dtype: torch.dtype) -> None:
    agrees(name, getattr(aten, name).default, meta(2, 3, 4, dtype=dtype), answered=True)


@pytest.mark.parametrize("name", ["relu_", "hardtanh_", "hardswish_", "silu_", "sigmoid_"])
def test_unary_in_place_gives_its_argument(name: str) -> None:
    x = meta(2, 3)
    assert quick_result(name, (x,), {}) is x


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(
    shapes,
    shapes,
    st.sampled_from(FLOATS),
    st.sampled_from((*FLOATS, torch.int64)),
    st.sampled_from(("add", "mul", "div", "sub")),
)
@settings(max_examples=150, deadline=None)
def test_binary(a: tuple[int, ...], b: tuple[int, ...], x: torch.dtype, y: torch.dtype, name: str) -> None:
    agrees(name, getattr(aten, name).Tensor, meta(*a, dtype=x), meta(*b, dtype=y))
    agrees(f"{name}_", getattr(aten, f"{name}_").Tensor, meta(*a, dtype=x), meta(*b, dtype=y))


@pytest.mark.parametrize("number", [2, 0.5, True, 1j])
def test_binary_with_a_number(number: Any) -> None:
    agrees("mul", aten.mul.Tensor, meta(2, 3), number)
    agrees("mul", aten.mul.Tensor, meta(2, 3, dtype=torch.int64), number)


def test_common_cases_are_answered() -> None:
    x = meta(1, 4, 5, 5)
    agrees("add", aten.add.Tensor, x, x, answered=True)
    agrees("mul", aten.mul.Tensor, x, meta(1, 4, 1, 1), answered=True)
    agrees("mul", aten.mul.Tensor, meta(4, 1, 1), x, answered=True)
    agrees("mean", aten.mean.dim, x, [-1, -2], True, answered=True)
    agrees("cat", aten.cat.default, [x, meta(1, 3, 5, 5)], 1, answered=True)
    agrees("addmm", aten.addmm.default, meta(7), meta(3, 4), meta(7, 4).t(), answered=True)
    agrees("native_layer_norm", aten.native_layer_norm.default, x, [5], meta(5), meta(5), 1e-5, answered=True)


@given(
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 3]),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
             min_size=1, max_size=3),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_convolution(batch: int, off: int, groups: int, into: int, out: int, axes: Any, bias: bool) -> None:
    extent, kernel, stride, padding, dilation = ([a[i] for a in axes] for i in range(5))
    x = meta(batch, into * groups + (off == 3), *extent)
    w = meta(out * groups, into, *kernel)
    b = meta(out * groups) if bias else None
    agrees("convolution", aten.convolution.default, x, w, b, stride, padding, dilation, False, [0] * len(axes), groups)


def test_convolution_leaves_the_rest_to_pytorch() -> None:
    x, w = meta(1, 4, 5, 5), meta(4, 4, 3, 3)
    one, none = [1, 1], [0, 0]
    agrees("convolution", aten.convolution.default, x, w, None, one, none, one, False, none, 1, answered=True)
    agrees("convolution", aten.convolution.default, x, w, None, one, none, one, True, none, 1, answered=False)
    last = x.to(memory_format=torch.channels_last)
    agrees("convolution", aten.convolution.default, last, w, None, one, none, one, False, none, 1, answered=False)
    agrees(
        "convolution",
        aten.convolution.default,
        meta(1, 4, 2, 2),
        w,
        None,
        one,
        none,
        one,
        False,
        none,
        1,
        answered=False,
    )


@given(st.lists(sizes, min_size=1, max_size=5), st.sampled_from(FLOATS), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_batch_norm(shape: list[int], dtype: torch.dtype, affine: bool, tracked: bool, training: bool) -> None:
    x = meta(*shape, dtype=dtype)
    c = shape[1] if len(shape) > 1 else 1
    vectors = [meta(c, dtype=dtype) if affine else None] * 2 + [meta(c, dtype=dtype) if tracked else None] * 2
    training = training or not tracked
    args = (x, *vectors, training, 0.1, 1e-5)
    if training:
        agrees("native_batch_norm", aten.native_batch_norm.default, *args)
        return
    # Without training PyTorch's meta kernel invents statistics that its CPU kernel does not return.
    quick = quick_result("native_batch_norm", args, {})
    assert (quick is not None) == (len(shape) > 1 and dtype is not torch.float16)
    if quick is not None:
        real = aten.native_batch_norm.default(
            *[torch.zeros(t.shape, dtype=t.dtype) if isinstance(t, Tensor) else t for t in args]
        )
        assert [(t.shape, t.dtype) for t in quick] == [(t.shape, t.dtype) for t in real]


@given(st.lists(sizes, min_size=1, max_size=4), st.integers(0, 4), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_layer_norm(shape: list[int], n: int, affine: bool, wrong: bool) -> None:
    normalized = shape[len(shape) - n :] if n else []
    weight = meta(*normalized[:-1], *(k + wrong for k in normalized[-1:])) if affine else None
    agrees("native_layer_norm", aten.native_layer_norm.default, meta(*shape), normalized, weight, weight, 1e-5)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=3), st.integers(-4, 3))
@settings(max_examples=150, deadline=None)
def test_cat(shapes: list[list[int]], dim: int) -> None:
    agrees("cat", aten.cat.default, [meta(*shape) for shape in shapes], dim)


@given(
    st.tuples(sizes, sizes, st.integers(1, 12), st.integers(1, 12)),
    *[
        st.tuples(st.integers(low, high), st.integers(low, high)).map(list)
        for low, high in ((1, 5), (1, 4), (0, 3), (1, 2))
    ],
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_max_pool(shape: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> None:
    x = meta(*shape)
    agrees("max_pool2d_with_indices", aten.max_pool2d_with_indices.default, x, kernel, stride, padding, dilation, ceil)
    agrees("max_pool2d_with_indices", aten.max_pool2d_with_indices.default, x, kernel)


@given(st.lists(st.integers(0, 4), max_size=4), st.lists(st.integers(-5, 4), max_size=3), st.booleans())
@settings(max_examples=150, deadline=None)
def test_mean(shape: list[int], dims: list[int], keepdim: bool) -> None:
    agrees("mean", aten.mean.dim, meta(*shape), dims, keepdim)


@given(st.lists(sizes, min_size=2, max_size=5), st.lists(st.integers(0, 7), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_adaptive_average(shape: list[int], size: list[int]) -> None:
    agrees("_adaptive_avg_pool2d", aten._adaptive_avg_pool2d.default, meta(*shape), size)


@given(sizes, sizes, sizes, st.sampled_from([1, 2, 3]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_addmm(m: int, k: int, n: int, rank: int, transposed: bool, wrong: bool) -> None:
    bias = meta(n) if rank == 1 else meta(m, n) if rank == 2 else meta(1, m, n)
    b = meta(n, k + wrong).t() if transposed else meta(k + wrong, n)
    agrees("addmm", aten.addmm.default, bias, meta(m, k), b)


def test_only_plain_tensors_are_answered() -> None:
    x = meta(2, 3)
    assert quick_result("relu", (torch.ones(2),), {}) is None
    assert quick_result("relu", (meta(2, dtype=torch.int64),), {}) is None
    assert quick_result("relu", (x.t(),), {}) is None
    assert quick_result("add", (x, x), {"alpha": 2}) is None
    assert quick_result("no_such_operator", (x,), {}) is None
    assert quick_result("relu", (), {}) is None
