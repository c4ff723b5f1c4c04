"""Data that a network does not take, and targets that it has no class for, are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.errors import DataError, UsageError

X, Y = torch.randn(24, 3, 8, 8), torch.arange(24) % 4
SHORT = compressor.Training(search_epochs=1, finetune_epochs=0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def compressed(data: Any, **more: Any) -> Any:
    return compressor.compress(network(), X[:1], {"params": "60%"}, data=data, training=SHORT, **more)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (X.double(), "float64 of shape"),
        (X.half(), "float16 of shape"),
        (X.bfloat16(), "bfloat16 of shape"),
        (X.byte(), "uint8 of shape"),
        (X[:, :1], r"float32 of shape \[8, 1, 8, 8\]"),
        (X[:, 0], r"float32 of shape \[8, 8, 8\]"),
        (X.permute(0, 2, 3, 1), r"float32 of shape \[8, 8, 8, 3\]"),
    ],
)
@pytest.mark.parametrize("rebuilt", [True, False])
def test_inputs_of_another_kind(inputs: Tensor, said: str, rebuilt: bool) -> None:
    loader = DataLoader(TensorDataset(inputs, Y), batch_size=8)
    data = (loader, loader) if rebuilt else (list(loader), list(loader))
    model, before = network(), torch.random.get_rng_state()
    with pytest.raises(DataError, match=rf"traced with float32 of shape \[1, 3, 8, 8\], and does not take .*{said}"):
        compressor.compress(model, X[:1], {"params": "60%"}, data=data, training=SHORT)
    assert torch.equal(before, torch.random.get_rng_state())


def test_inputs_of_another_size_are_taken() -> None:
    loader = DataLoader(TensorDataset(torch.randn(24, 3, 12, 10), Y), batch_size=8)
    assert compressed((loader, loader)).model(X[:1]).shape == (1, 4)


@pytest.mark.parametrize("place", [0, 20])
@pytest.mark.parametrize(
    ("label", "said"), [(-1, "class -1; classes count from 0"), (4, "class 4, but the model has 4")]
)
@pytest.mark.parametrize("dense", [False, True])
def test_classes_that_there_are_not(place: int, label: int, said: str, dense: bool) -> None:
    targets = Y.clone()
    targets[place] = label
    model: nn.Module = network()
    if dense:
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(2))
        targets = targets[:, None].repeat(1, 64)
        targets[:, 1] = -100
    batches = [(X[i : i + 8], targets[i : i + 8]) for i in range(0, 24, 8)]
    clean = [(X[:8], targets[8:16])]
    with pytest.raises(DataError, match=said):
        compressor.compress(model, X[:1], {"params": "60%"}, data=(batches, clean), training=SHORT)


def test_a_name_is_no_data() -> None:
    with pytest.raises(UsageError, match=r"pass compressor\.data\.load_data\('digits'\)"):
        compressed("digits")


@pytest.mark.parametrize(("given", "steps"), [(None, 3), (12, 2), (24, 1)])
def test_the_batch_size_is_that_of_the_loader_unless_said(given: int | None, steps: int) -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)
    training = compressor.Training(search_epochs=1, finetune_epochs=0, batch_size=given)
    seen: list[Any] = []
    compressor.compress(
        network(), X[:1], {"params": "60%"}, data=(loader, loader), training=training, listeners=[seen.append]
    )
    assert {event.total for event in seen if type(event).__name__ == "Step"} == {steps}
