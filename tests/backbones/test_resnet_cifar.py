"""CIFAR ResNets: sizes of the paper, the shortcut without parameters, and the accuracy of published weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.backbones import BACKBONES
from compressor.backbones.resnet_cifar import BasicBlock, resnet20_cifar
from compressor.errors import UsageError


# Parameters as in table 6 of the paper (0.27 M, 0.46 M, 0.66 M, 0.85 M, 1.7 M).
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.73)])
def test_parameter_counts_match_the_paper(depth: int, millions: float) -> None:
    model = BACKBONES.get(f"resnet{depth}_cifar")()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == depth


def test_shortcut_pads_zeros_on_both_sides_and_has_no_parameters() -> None:
    block = BasicBlock(4, 8, stride=2).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, 4, 6, 6)
    out = block(x)
    assert out.shape == (2, 8, 3, 3)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (8, 8), (1, 1), (9, 13)])
def test_any_input_size(size: tuple[int, int]) -> None:
    model = resnet20_cifar(num_classes=7, in_channels=1).eval()
    assert model(torch.zeros(2, 1, *size)).shape == (2, 7)
    assert model.input_shape == (1, 32, 32)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="num_classes"):
        resnet20_cifar(num_classes=0)


@pytest.mark.parametrize(("depth", "accuracy"), [(20, 0.915), (56, 0.926)])
def test_published_weights_reach_their_accuracy(depth: int, accuracy: float) -> None:
    folder = os.environ.get("COMPRESSOR_DATA")
    if not folder:
        pytest.skip("COMPRESSOR_DATA is not set: no CIFAR-10 and no published weights")
    from compressor.data import load_data
    from compressor.models import load_model

    model = load_model(f"resnet{depth}_cifar", weights=f"{folder}/weights/cifar10_resnet{depth}.safetensors").model
    test = load_data(f"cifar10:{Path(folder)}").test
    assert test is not None
    with torch.inference_mode():
        right = np.concatenate([(model(x).argmax(1) == y).numpy() for x, y in test.batches(250)])
    assert right.mean() == pytest.approx(accuracy, abs=1e-9)
