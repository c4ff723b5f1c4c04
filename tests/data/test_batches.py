"""Batches of every form are trained on, or refused with what to do."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import compressor
from compressor.data import from_loaders
from compressor.data.batches import read_batch
from compressor.errors import DataError


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(nn.Linear(6, 32), nn.ReLU()), nn.Sequential(nn.Linear(4, 32), nn.ReLU())
        self.head = nn.Linear(64, 3)

    def forward(self, left: Tensor, right: Tensor, scale: Tensor | None = None) -> Tensor:
        y = self.head(torch.cat([self.a(left), self.b(right)], 1))
        return y if scale is None else y * scale


N = 64
RANDOM = torch.Generator().manual_seed(0)
LEFT, RIGHT = torch.randn(N, 6, generator=RANDOM), torch.randn(N, 4, generator=RANDOM)
Y = torch.randint(0, 3, (N,), generator=RANDOM)


class Rows(Dataset[Any]):
    """As data sets of Hugging Face give them."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"left": LEFT[i], "right": RIGHT[i], "labels": Y[i]}


def batched(form: Any) -> list[Any]:
    return [form(LEFT[i : i + 16], RIGHT[i : i + 16], Y[i : i + 16]) for i in range(0, N, 16)]


FORMS: dict[str, Any] = {
    "triples": batched(lambda a, b, y: (a, b, y)),
    "lists": batched(lambda a, b, y: [a, b, y]),
    "nested": batched(lambda a, b, y: ((a, b), y)),
    "named inputs": batched(lambda a, b, y: ({"left": a, "right": b}, y)),
    "dicts": batched(lambda a, b, y: {"left": a, "right": b, "labels": y}),
    "other name": batched(lambda a, b, y: {"right": b, "target": y, "left": a, "scale": None}),
    "user dicts": batched(lambda a, b, y: UserDict(left=a, right=b, label=y)),
    "numpy": batched(lambda a, b, y: (a.numpy(), b.numpy(), y.numpy())),
    "list of numbers": batched(lambda a, b, y: ((a, b), y.tolist())),
    "loader of dicts": DataLoader(Rows(), batch_size=16, shuffle=True),
    "loader of triples": DataLoader(TensorDataset(LEFT, RIGHT, Y), batch_size=16),
}


@pytest.mark.parametrize("search", ["figs", "oneshot"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_trained_on(form: str, search: str) -> None:
    data = (FORMS[form], FORMS[form])
    epochs = {"search_epochs": 1} if search == "figs" else {}
    result = compressor.compress(
        Two(), (LEFT[:1], RIGHT[:1]), {"flops": "50%"}, data=data, search=search, finetune_epochs=1, **epochs
    )
    assert result.report.accuracy is not None
    assert result.model(LEFT, RIGHT).shape == (N, 3)


def test_forms_that_mean_the_same_train_the_same() -> None:
    found = []
    for form in ("triples", "nested", "named inputs", "dicts", "numpy"):
        torch.manual_seed(0)
        data = (FORMS[form], FORMS[form])
        result = compressor.compress(
            Two(), (LEFT[:1], RIGHT[:1]), {"flops": "50%"}, data=data, search_epochs=1, finetune_epochs=1
        )
        found.append(result.model(LEFT, RIGHT))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(
    "form",
    [
        lambda a, b, y: (a, b, {"classes": y, "weight": torch.ones(len(y))}),
        lambda a, b, y: ((a, b), (y, torch.ones(len(y)))),
        lambda a, b, y: {"left": a, "right": b, "labels": {"classes": y, "weight": torch.ones(len(y))}},
    ],
)
def test_a_loss_of_one_s_own_gets_what_it_needs(form: Any) -> None:
    def loss(outputs: Tensor, targets: Any) -> Tensor:
        y, weight = (targets["classes"], targets["weight"]) if isinstance(targets, dict) else targets
        return (nn.functional.cross_entropy(outputs, y, reduction="none") * weight).mean()

    data = (batched(form), batched(form))
    result = compressor.compress(
        Two(), (LEFT[:1], RIGHT[:1]), {"flops": "50%"}, data=data, loss_fn=loss, search_epochs=1, finetune_epochs=1
    )
    assert result.model(LEFT, RIGHT).shape == (N, 3)
    with pytest.raises(DataError, match="loss_fn"):
        compressor.compress(Two(), (LEFT[:1], RIGHT[:1]), {"flops": "50%"}, data=data)


def test_batches_without_targets_take_a_loss() -> None:
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 6))
    batches = list(LEFT.split(16))
    result = compressor.compress(
        model, LEFT[:1], {"flops": "50%"}, data=(batches, batches), search_epochs=1, finetune_epochs=0,
        loss_fn=lambda out, x: (out - x).square().mean(),
    )  # fmt: skip
    assert result.model(LEFT).shape == LEFT.shape
    with pytest.raises(DataError, match="without targets"):
        compressor.compress(model, LEFT[:1], {"flops": "50%"}, data=(batches, batches))


@pytest.mark.parametrize(
    ("form", "match"),
    [
        (lambda a, b, y: {"left": a, "right": b}, "needs the inputs.*'labels'"),
        (lambda a, b, y: {"labels": y}, "needs the inputs"),
        (lambda a, b, y: {"left": a, "right": b, "text": ["x"] * len(y), "labels": y}, "'text'.*remove"),
        (lambda a, b, y: {"left": a, "right": b, "idx": y, "labels": y}, "'idx'.*does not take|takes.*'idx'"),
        (lambda a, b, y: (a, b, y, y, y), "4 inputs.*takes"),
        (lambda a, b, y: (a, "path", y), "str"),
        (lambda a, b, y: "text", "str"),
        (lambda a, b, y: ((a, b), ["a"] * len(y)), "loss_fn"),
        (lambda a, b, y: (), "tuple"),
    ],
)
def test_other_forms_are_refused_with_what_to_do(form: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        compressor.compress(Two(), (LEFT[:1], RIGHT[:1]), {"flops": "50%"}, data=(batched(form), batched(form)))


def test_the_example_of_the_data_is_one_sample() -> None:
    data = from_loaders(FORMS["dicts"], FORMS["dicts"])
    assert {key: value.shape for key, value in data.example.kwargs.items()} == {"left": (1, 6), "right": (1, 4)}
    assert data.input_shape == (6,)
    assert data.describe()["input_shape"] == [6]
    assert len(data.val) == N


@pytest.mark.parametrize("seed", range(20))
def test_pairs_of_tensors_are_what_they_were(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = torch.randn(3, int(random.integers(1, 4))), torch.randint(0, 3, (3,))
    for pair in ((x, y), [x, y]):
        inputs, targets = read_batch(pair)
        assert inputs is x
        assert targets is y
