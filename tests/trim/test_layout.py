"""What is trimmed lies in memory as it did, and inputs that a forward changes in place do not matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.nn.tensors import laid_out_like


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_last_stays(dims: int, kernel: int) -> None:
    conv: Any = (nn.Conv2d, nn.Conv3d)[dims - 2]
    form: Any = (torch.channels_last, torch.channels_last_3d)[dims - 2]
    net = nn.Sequential(conv(3, 32, kernel), nn.ReLU(), conv(32, 16, kernel), nn.ReLU(), conv(16, 4, kernel))
    x = torch.randn(1, 3, *[9] * dims)
    plain: Any = compressor.compress(net, x, {"flops": "50%"}).model
    assert plain[2].weight.is_contiguous()
    small: Any = compressor.compress(net.to(memory_format=form), x, {"flops": "50%"}).model
    for layer in (small[0], small[2], small[4]):
        fresh = torch.empty_like(layer.weight, memory_format=torch.contiguous_format).to(memory_format=form)
        assert layer.weight.stride() == fresh.stride() or layer.weight.is_contiguous(memory_format=form)
    assert small[0].weight.shape[0] < 32
    assert not small[2].weight.is_contiguous() or kernel == 1


def test_any_order_of_axes_stays() -> None:
    torch.manual_seed(0)
    for _ in range(40):
        dims = int(torch.randint(1, 6, ()))
        shape = [int(torch.randint(1, 5, ())) for _ in range(dims)]
        order = torch.randperm(dims).tolist()
        inverse = [order.index(d) for d in range(dims)]
        whole = torch.randn([shape[d] for d in order]).permute(inverse)
        part = whole[tuple(slice(0, max(1, n - 1)) for n in shape)].contiguous()
        found = laid_out_like(whole, part)
        assert torch.equal(found, part)
        dense = torch.empty([part.shape[d] for d in order]).permute(inverse)
        assert [d for d in range(dims) if part.shape[d] > 1 and found.stride(d) != dense.stride(d)] == []


def test_frozen_parameters_stay_frozen() -> None:
    net: Any = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3))
    net[0].weight.requires_grad_(False)
    small: Any = compressor.compress(net, torch.randn(1, 3, 9, 9), {"flops": "50%"}).model
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in net.parameters()]


def scaled(x: Tensor) -> Tensor:
    x *= 255.0
    return x


def normalised(x: Tensor) -> Tensor:
    return x.sub_(0.5).div_(0.25)


def clamped(x: Tensor) -> Tensor:
    return x.clamp_(-1, 1)


def zeroed(x: Tensor) -> Tensor:
    x[:, :, 0] = 0
    return x


class Net(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor], given: str) -> None:
        super().__init__()
        self.change, self.given = change, given
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3), nn.Conv2d(16, 8, 3)

    def forward(self, x: Any) -> Tensor:
        x = self.change(x["image"] if self.given == "dict" else x[0] if self.given == "list" else x)
        out: Tensor = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        return out


@pytest.mark.parametrize("given", ["tensor", "dict", "list"])
@pytest.mark.parametrize("change", [scaled, normalised, clamped, zeroed])
def test_a_forward_may_change_its_input(change: Callable[[Tensor], Tensor], given: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 16)
    kept = x.clone()
    inputs: Any = {"tensor": x, "dict": ({"image": x},), "list": ([x],)}[given]
    result = compressor.compress(Net(change, given), inputs, {"flops": "50%"})
    assert result.report.verification is not None
    assert result.report.verification.passed
    assert result.report.budgets[0].met
    assert torch.equal(x, kept), "the example is the user's"


def test_training_on_inputs_that_are_changed_in_place() -> None:
    torch.manual_seed(0)
    batches = [(torch.rand(4, 3, 16, 16), torch.randint(8, (4,))) for _ in range(2)]
    kept = [x.clone() for x, _ in batches]
    net = nn.Sequential(Net(scaled, "tensor"), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    options = {"epochs": 1, "batch_size": 4}
    compressor.compress(
        net, batches[0][0], {"flops": "50%"}, data=(batches, batches), search="figs", options=options, distill=0.5,
        search_epochs=1, finetune_epochs=1, batch_size=4,
    )  # fmt: skip
    assert all(torch.equal(x, before) for (x, _), before in zip(batches, kept, strict=True))
