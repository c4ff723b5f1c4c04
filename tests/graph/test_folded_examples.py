"""Examples folded into the channels of one convolution, whose weights are made for each of them, as its groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.graph import capture
from compressor.masks import Masking
from compressor.trim import trim_verified

CONVOLUTIONS = {1: (F.conv1d, F.conv_transpose1d), 2: (F.conv2d, F.conv_transpose2d), 3: (F.conv3d, F.conv_transpose3d)}


class Mixed(nn.Module):
    """For each example its own mixture of a few kernels."""

    def __init__(self, i: int, o: int, n: int, *, transposed: bool = False, by_position: bool = False) -> None:
        super().__init__()
        kernel = (3,) * n
        self.transposed, self.by_position = transposed, by_position
        self.weight = nn.Parameter(torch.randn(2, *((i, o) if transposed else (o, i)), *kernel) * 0.3)
        self.weigh = nn.Linear(i, 2)
        self.convolve: Callable[..., Tensor] = CONVOLUTIONS[n][transposed]

    def forward(self, x: Tensor) -> Tensor:
        b, c, *size = x.shape
        share = self.weigh(x.flatten(2).mean(-1)).softmax(-1)
        w = torch.einsum("bk,k...->b...", share, self.weight)
        o = w.shape[2] if self.transposed else w.shape[1]
        w, x = w.flatten(0, 1), x.reshape(1, b * c, *size)
        if self.by_position:
            y = self.convolve(x, w, None, 1, 1, *((0, b) if self.transposed else (1, b)))
        else:
            y = self.convolve(x, w, padding=1, groups=b)
        return y.view(b, o, *size)


class Modulated(nn.Module):
    """One kernel, whose input channels each example scales; the result is normalised over them."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, 3, 3))
        self.style = nn.Linear(i, i)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernel = self.weight * self.style(x.mean((2, 3)))[:, None, :, None, None]
        kernel = kernel * torch.rsqrt(kernel.square().sum(2, keepdim=True) + 1e-6)
        o = kernel.shape[1]
        return F.conv2d(x.reshape(1, b * c, h, w), kernel.view(b * o, c, 3, 3), padding=1, groups=b).view(b, o, h, w)


FORMS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "1d": (lambda: Mixed(8, 6, 1), 1),
    "2d": (lambda: Mixed(8, 6, 2), 2),
    "2d, groups by position": (lambda: Mixed(8, 6, 2, by_position=True), 2),
    "3d": (lambda: Mixed(8, 6, 3), 3),
    "1d transposed": (lambda: Mixed(8, 6, 1, transposed=True), 1),
    "2d transposed": (lambda: Mixed(8, 6, 2, transposed=True), 2),
    "2d transposed, groups by position": (lambda: Mixed(8, 6, 2, transposed=True, by_position=True), 2),
    "modulated": (lambda: Modulated(8, 6), 2),
}
INTO = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("examples", [1, 3])
def test_channels_go_on_both_sides(form: str, examples: int) -> None:
    make, n = FORMS[form]
    torch.manual_seed(0)
    model = nn.Sequential(INTO[n](3, 8, 1), nn.Tanh(), make(), nn.Tanh(), INTO[n](6, 4, 1)).eval()
    x = torch.randn(examples, 3, *(4,) * n)
    graph = capture(model, x)
    for name, axis in (("0.weight", 0), ("4.weight", 1)):
        assert graph.parameters[name].axes[axis] is not None, [(f.place, f.operator, f.reason) for f in graph.fixed]
    units = graph.all_units()
    rng = np.random.default_rng(0)
    for group in graph.groups:
        keep = rng.random(len(group)) < 0.5
        keep[rng.integers(len(group))] = True
        units[group.units] = keep
    result = trim_verified(model, graph, units, x)
    assert not result.refused, f"{result.refused} {result.check.reason}"
    masks = torch.from_numpy(units).float()
    for count in (1, 2, 5):  # also in a loop, of any number of examples
        x = torch.randn(count, 3, *(4,) * n)
        with torch.no_grad():
            with Masking(model, graph).applied(masks):
                expected = model(x)
            assert torch.allclose(result.model(x), expected, atol=1e-5)
