"""A convolution is planted in a teacher: the search finds its dilation, and a kernel that holds its taps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import compressor

CASES = [(1, 3, 7), (1, 7, 3), (1, 11, 1), (1, 15, 3), (1, 7, 7), (2, 3, 3), (2, 5, 1), (2, 7, 3), (2, 3, 7)]
QUICK = {(1, 7, 3), (1, 11, 1), (2, 3, 3)}
CHANNELS, COUNT, BATCH = 4, 1792, 32


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


@pytest.mark.parametrize(
    ("axes", "kernel", "dilation"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_a_planted_convolution_is_found(axes: int, kernel: int, dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv, size = (nn.Conv1d, (96,)) if axes == 1 else (nn.Conv2d, (32, 32))
    teacher = conv(CHANNELS, CHANNELS, kernel, padding="same", dilation=dilation, bias=False)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = nn.Sequential(conv(CHANNELS, CHANNELS, 3, padding=1, bias=False), conv(CHANNELS, CHANNELS, 1))
        drawn = torch.randn(teacher.weight.shape, generator=generator)
        teacher.weight.copy_(drawn / math.sqrt(CHANNELS * kernel**axes))
        x = torch.randn(COUNT, CHANNELS, *size, generator=generator)
        y = teacher(x)
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    result = compressor.compress(
        model,
        x[:1],
        {"flops": "100000%"},  # whatever it costs
        data=(batches[4:], batches[:4]),
        search="dash",
        options={"share": 1.0},
        scope=compressor.Scope(include="0"),
        training=compressor.Training(search_epochs=4, finetune_epochs=0, batch_size=BATCH, loss_fn=squared),
    )
    found = result.report.operators["0"]
    assert found.dilation == [dilation] * axes
    assert all(k >= kernel for k in found.kernel_size)
