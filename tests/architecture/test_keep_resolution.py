"""Strides and pools that keep the resolution they read, and what cannot."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import KeepResolution, Work, edit_from_json
from compressor.errors import UsageError


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 3, 3, 2, 1),
        nn.Conv2d(3, 3, 1, 2),
        nn.Conv2d(3, 3, (3, 5), (2, 1), (2, 4), (2, 2)),
        nn.Conv2d(3, 3, 2, 2),
        nn.Conv2d(3, 3, 4, 4, bias=False),
        nn.MaxPool2d(2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, 2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d((3, 1), 2, (1, 0)),
    ],
    ids=str,
)
def test_a_resolution_is_kept_and_weights_are(module: nn.Module) -> None:
    model, x = nn.Sequential(module), torch.randn(1, 3, 13, 17)
    edit = edit_from_json(json.loads(json.dumps(KeepResolution(["0"]).to_json())), "edit")
    shapes = {name: list(t.shape) for name, t in model.named_parameters()}
    small = Architecture("Sequential", shapes, (edit,)).apply_(copy.deepcopy(model))
    assert small(x).shape == x.shape
    assert {k: v.tolist() for k, v in small.state_dict().items()} == {
        k: v.tolist() for k, v in model.state_dict().items()
    }
    with pytest.raises(UsageError, match="no stride"):
        edit.check(Work(small))


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 3, 3, 2),
        nn.Conv2d(3, 3, 4, 2, 1),
        nn.Conv2d(3, 3, 3, 2, 1, dilation=2),
        nn.MaxPool2d(2, 3),
        nn.MaxPool2d(4, 2, 1),
        nn.MaxPool2d(3, 2, 1, return_indices=True),
        nn.AdaptiveAvgPool2d(2),
        nn.ConvTranspose2d(3, 3, 3, 2, 1),
    ],
    ids=str,
)
def test_what_cannot_keep_its_resolution_is_refused(module: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"'0' (has|is) .*"):
        KeepResolution(["0"]).check(Work(nn.Sequential(module)))


def test_patches_without_a_stride_say_nothing_of_other_sizes() -> None:
    """A pool of windows that are its stride does nothing any more."""
    model, x = nn.Sequential(nn.MaxPool2d(2)), torch.randn(1, 3, 8, 8)
    KeepResolution(["0"]).apply_(Work(model))
    assert torch.equal(model(x), x)
