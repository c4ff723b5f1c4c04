"""Narrowed attention with masks is exported like the original: strictly or not, and with sizes that values tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.nn.multihead import NarrowAttention


class Net(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(32, 4, batch_first=batch_first), nn.Linear(32, 32)

    def forward(self, x: Tensor, pad: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        y, _ = self.attention(x, x, x, key_padding_mask=pad, attn_mask=mask, need_weights=False)
        return self.out(x + y)


class Lengths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(40, 4), nn.Linear(40, 40)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(int(lengths.max())).expand(lengths.shape[0], -1) >= lengths[:, None]
        y, _ = self.attention(x, x, x, key_padding_mask=mask, need_weights=False)
        return self.out(x + y)


X = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
PAD = torch.arange(6) >= torch.tensor([[4], [6]])
CAUSAL = torch.ones(6, 6).triu(1).bool()
MASKS: dict[str, dict[str, Tensor]] = {
    "none": {},
    "padding": {"pad": PAD},
    "causal": {"mask": CAUSAL},
    "both": {"pad": PAD, "mask": CAUSAL},
    "of every head": {"mask": torch.zeros(8, 6, 6)},
    "additive": {"mask": torch.zeros(6, 6).masked_fill(CAUSAL, float("-inf"))},
}


@pytest.mark.parametrize("masks", MASKS)
def test_programs_take_the_masks(masks: str) -> None:
    kwargs = MASKS[masks]
    result = compressor.compress(Net(), X, {"flops": "50%"}, search="oneshot", example_kwargs=kwargs)
    assert isinstance(result.model.attention, NarrowAttention)
    expected = result.model(X, **kwargs)
    for strict in (False, True):
        program = torch.export.export(result.model, (X,), kwargs, strict=strict)
        assert torch.allclose(program.module()(X, **kwargs), expected, atol=1e-6)


def test_files_take_the_masks(tmp_path: Path) -> None:
    result = compressor.compress(Net(), X, {"flops": "50%"}, search="oneshot", example_kwargs=MASKS["padding"])
    (path,) = result.export(tmp_path)
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path))
    assert [value.name for value in session.get_inputs()] == ["x", "pad"]
    found = session.run(None, {"x": X.numpy(), "pad": PAD.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), result.model(X, pad=PAD), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_mask_of_a_size_that_values_tell() -> None:
    args = (torch.randn(30, 1, 40), torch.full((1,), 30))
    result = compressor.compress(Lengths(), args, {"flops": "50%"}, search="oneshot")
    assert isinstance(result.model.attention, NarrowAttention)
    assert torch.onnx.export(result.model, args, dynamo=True, verbose=False) is not None


def test_a_mask_for_other_sizes_is_refused_as_by_the_original() -> None:
    result = compressor.compress(Net(), X, {"flops": "50%"}, search="oneshot")
    for wrong in ({"pad": PAD[:, :5]}, {"mask": CAUSAL[:5]}, {"mask": torch.zeros(4, 6, 6)}):
        for model in (Net(), result.model):
            with pytest.raises((RuntimeError, AssertionError)):
                model(X, **wrong)
