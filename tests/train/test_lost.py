"""A loss that is not finite says where it came from, and what overflowed steps neither weights nor masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compressor.train.lost import what_is_lost
from compressor.train.optim import step_all


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_lost_is_named(value: float) -> None:
    model, good, bad = nn.Linear(2, 2), torch.ones(2, 2), torch.full((2, 2), value)
    assert "inputs of its batch have 4" in what_is_lost(model, [(good, good), ({"a": [good, bad]}, good)])
    assert "targets of its batch have 4" in what_is_lost(model, [(good, bad)])
    assert "the forward or the loss" in what_is_lost(model, [(good, torch.ones(2).long())])
    with torch.no_grad():
        model.bias.fill_(value)
    assert "bias had become NaN or infinite" in what_is_lost(model, [(good, good)])


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("clipped", [False, True])
def test_optimizers_step_together_or_not_at_all(lost: int, clipped: bool) -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizers = [torch.optim.SGD([p], lr=1.0) for p in parameters]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for spoil in (True, False):
        for p in parameters:
            p.grad = None
            scaler.scale(p.sum()).backward()  # type: ignore[no-untyped-call]
        if spoil:
            parameters[lost].grad[0] = math.inf  # type: ignore[index]
        unscaled = optimizers[:1] if clipped else []
        for optimizer in unscaled:
            scaler.unscale_(optimizer)
        step_all(scaler, optimizers, unscaled)
        expected = 1.0 if spoil else 0.0
        assert all(torch.equal(p.detach(), torch.full((2,), expected)) for p in parameters)
    assert scaler.get_scale() == 2.0
