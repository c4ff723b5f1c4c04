"""Kernels with the padding "same" keep their taps where they are, at every size."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import (
    ReplaceConvolution,
)

ONE_APART = [(8, 7), (7, 8), (8, 9), (9, 8), (4, 9), (9, 4), (3, 6), (8, 2), (5, 5), (1, 4), (4, 1)]
TWO_APART = [(8, 6), (2, 8), (9, 3), (1, 5)]  # an odd and an even kernel have no taps in common there


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("sizes", "dilation"), [*((each, 1) for each in ONE_APART), *((each, 2) for each in TWO_APART)]
)
def test_same_padding_keeps_taps_where_they_are_at_every_size(sizes: tuple[int, int], dilation: int) -> None:
    """The smaller kernel, put among the zeros of the larger one where the edit puts it, computes the same."""
    old, new = sizes
    torch.manual_seed(0)
    conv = nn.Conv1d(2, 3, old, padding="same", dilation=dilation).double()
    edit = ReplaceConvolution("0", [new], [dilation])
    with torch.no_grad():
        if new < old:  # nothing but zeros is cut
            ones = edit.sliced("0.weight", torch.arange(old, dtype=torch.float64).expand(3, 2, old))
            cut = set(range(old)) - {int(n) for n in ones[0, 0].tolist()}
            conv.weight[..., sorted(cut)] = 0.0
    model = nn.Sequential(conv)
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    changed = Architecture("torch.nn.Sequential", shapes, (edit,)).apply_(copy.deepcopy(model))
    x = torch.randn(2, 2, 31, dtype=torch.float64)
    assert changed[0].weight.shape[-1] == new
    torch.testing.assert_close(changed(x), model(x))
