"""Mixtures computed the plain way, and random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from compressor.nn import AggConv1d, AggConv2d


@dataclass(frozen=True)
class Case:
    """A module and an input."""

    axes: int
    options: dict[str, Any]
    size: tuple[int, ...]
    batch: int
    seed: int

    def module(self, form: str = "auto", **more: Any) -> AggConv1d | AggConv2d:
        """The module, in eval mode and float64, with shares that are given and learn."""
        torch.manual_seed(self.seed)
        made = (AggConv1d, AggConv2d)[self.axes - 1](**self.options, form=form, dtype=torch.float64, **more).eval()
        made.given = torch.rand(len(made.candidates), dtype=torch.float64, requires_grad=True)
        return made

    def input(self) -> Tensor:
        """(B, in, *size)."""
        torch.manual_seed(self.seed + 1)
        return torch.randn(self.batch, self.options["in_channels"], *self.size, dtype=torch.float64, requires_grad=True)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    axes = draw(st.integers(1, 2))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    depthwise = draw(st.booleans())
    inside, out = (1, draw(st.integers(1, 2))) if depthwise else (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    kernel = st.sampled_from([1, 3, 5, 7])
    step = st.sampled_from([1, 2, 3, 7])
    sizes = st.integers(1, 12 if axes == 2 else 30)
    options = {
        "in_channels": groups * inside,
        "out_channels": groups * out,
        "kernel_sizes": tuple(draw(st.lists(kernel, min_size=1, max_size=3, unique=True))),
        "dilations": tuple(draw(st.lists(step, min_size=1, max_size=3, unique=True))),
        "stride": tuple(draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    extent = max(options["dilations"]) * (max(options["kernel_sizes"]) - 1) + 1
    size = [draw(sizes) for _ in range(axes)]
    padding: Any = "same"
    if draw(st.booleans()):
        padding = tuple(draw(st.integers(0, extent + 2)) for _ in range(axes))
        size = [max(n, extent - 2 * p) for n, p in zip(size, padding, strict=True)]
    return Case(axes, options | {"padding": padding}, tuple(size), draw(st.integers(1, 3)), draw(st.integers(0, 99)))


def dilated(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """A kernel with its zeros in between."""
    taps = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    full = weight.new_zeros(*weight.shape[:2], *taps)
    full[(..., *(slice(None, None, d) for d in dilation))] = weight
    return full


def reference(agg: AggConv1d | AggConv2d, x: Tensor) -> Tensor:
    """The mixture, one ordinary convolution of a kernel with zeros in it after the other."""
    apply = functional.conv1d if x.dim() == 3 else functional.conv2d
    axes = x.dim() - 2
    largest = [max(c.dilation[a] * (c.kernel_size[a] - 1) + 1 for c in agg.candidates) for a in range(axes)]
    pads = [(e - 1) // 2 for e in largest] if agg.padding == "same" else list(agg.padding)
    wide = functional.pad(x, [pad for p in reversed(pads) for pad in (p, p)])
    total = None
    for share, weight, candidate in zip(agg.mixture(), agg.weights, agg.candidates, strict=True):
        kernel = dilated(weight, candidate.dilation)
        around = [(e - own) // 2 for e, own in zip(largest, kernel.shape[2:], strict=True)]
        kernel = functional.pad(kernel, [pad for p in reversed(around) for pad in (p, p)])
        y = share * apply(wide, kernel, None, agg.stride, 0, 1, agg.groups)
        total = y if total is None else total + y
    assert total is not None
    return total if agg.bias is None else total + agg.bias.reshape(-1, *[1] * axes)


def results(y: Tensor, agg: AggConv1d | AggConv2d, x: Tensor, seed: int) -> dict[str, Tensor]:
    """The output and every gradient of a random linear function of it."""
    torch.manual_seed(seed)
    assert agg.given is not None
    wanted = {"x": x, "given": agg.given} | {f"weights.{i}": w for i, w in enumerate(agg.weights)}
    if agg.bias is not None:
        wanted["bias"] = agg.bias
    grads = torch.autograd.grad(y, list(wanted.values()), torch.randn(y.shape, dtype=y.dtype))
    return {"y": y.detach(), **dict(zip(wanted, grads, strict=True))}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    """Relative to the largest number of each tensor, or of all of them where a tensor is next to nothing."""
    for name, one in expected.items():
        scale = max(float(one.abs().max()), 1e-3)
        assert found[name].shape == one.shape, name
        assert float((found[name] - one).abs().max()) <= tolerance * scale, name
