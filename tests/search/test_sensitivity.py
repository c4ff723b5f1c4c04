"""Sensitivity: what a unit contributes to the outputs, whatever the labels, over the kinds of layers that read it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.data.task import Task
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.search.base import SearchContext
from compressor.search.importance.base import Ranking
from compressor.search.importance.rank import rank
from compressor.search.importance.sensitivity import output_change
from compressor.train.objectives.outputs import differentiable_outputs
from compressor.train.rng import derive_seed
from tests.search.search_models import EXAMPLE, NETWORKS


class Loader:
    """Batches of inputs with targets, as a user's loader gives them."""

    def __init__(self, x: Tensor, y: Tensor, size: int = 64) -> None:
        self.x, self.y, self.size = x, y, size

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, batch_size: int, **_: Any) -> Any:
        return zip(self.x.split(self.size), self.y.split(self.size), strict=True)


class Samples:
    """Data with one split."""

    def __init__(self, x: Tensor, classes: int = 4, seed: int = 0) -> None:
        targets = torch.randint(classes, (len(x),), generator=torch.Generator().manual_seed(seed))
        self.train, self.task = Loader(x, targets), Task(outputs=classes)


def context(model: nn.Module, x: Tensor, **rest: Any) -> SearchContext:
    return SearchContext(model, capture(model, x[:2]), [], **{"data": Samples(x), **rest})


def linear() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 1)), torch.randn(96, 6)


def tokens() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 1)), torch.randn(96, 5, 6)


def image() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Conv2d(3, 10, 1), nn.ReLU(), nn.Conv2d(10, 1, 1)), torch.randn(96, 3, 4, 4)


def signal() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Conv1d(3, 10, 1), nn.Tanh(), nn.Conv1d(10, 1, 1)), torch.randn(96, 3, 7)


def transposed() -> tuple[nn.Module, Tensor]:
    layers = nn.ConvTranspose2d(3, 10, 1), nn.ReLU(), nn.ConvTranspose2d(10, 1, 1)
    return nn.Sequential(*layers), torch.randn(96, 3, 4, 4)


class Read(nn.Module):
    """Hidden units that a call reads, by the transpose of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 10), nn.Linear(10, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.first(x)) @ self.last.weight.t()


@pytest.mark.parametrize("made", [linear, tokens, image, signal, transposed])
def test_it_is_what_a_unit_adds_to_the_outputs_less_its_mean(made: Callable[[], tuple[nn.Module, Tensor]]) -> None:
    torch.manual_seed(0)
    model, x = made()
    given = context(model, x)
    found = output_change(Ranking(given, batches=1))
    layers: Any = list(model)
    x = x[:64]
    with torch.no_grad():
        hidden = layers[1](layers[0](x))
        last = -1 if isinstance(layers[2], nn.Linear) else 1
        each = hidden.movedim(last, -1) * layers[2].weight.flatten()  # what each unit adds, (samples, ..., units)
        each = each - each.flatten(0, -2).mean(0)
        size = model(x).square().mean().sqrt()
    expected = (each / size).square().flatten(0, -2).sum(0).double().numpy()
    if hidden.dim() == 2:  # one output for each sample: its random sign does not matter
        assert np.allclose(found, expected, rtol=1e-4)
    many = np.mean([output_change(Ranking(context(model, x, seed=seed), batches=1)) for seed in range(40)], axis=0)
    assert np.allclose(many, expected, rtol=0.35)
    assert np.corrcoef(many, expected)[0, 1] > 0.95


def test_what_no_layer_reads_comes_from_the_masks() -> None:
    torch.manual_seed(0)
    model, x = Read(), torch.randn(64, 6)
    with torch.no_grad():
        each = torch.relu(model.first(x)) * model.last.weight.flatten() / model(x).square().mean().sqrt()
    many = np.mean([output_change(Ranking(context(model, x, seed=seed), batches=1)) for seed in range(400)], axis=0)
    assert np.allclose(many, each.square().sum(0).double().numpy(), rtol=0.35)


def test_a_unit_that_is_constant_changes_nothing() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 1, 1))
    with torch.no_grad():
        model[0].bias[2] = 50.0
    x = torch.randn(64, 3, 6, 6)
    units, _ = rank(context(model, x), "sensitivity")
    assert units.argmin() == 2
    assert units[2] < 1e-3 * np.median(units)
    by_size, _ = rank(context(model, x), "l2")
    assert by_size[2] > 0.1 * np.median(by_size)  # the layer behind it reads it all the same


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_labels_do_not_matter_and_nothing_is_changed(name: str) -> None:
    torch.manual_seed(0)
    model, x = NETWORKS[name](), torch.randn(16, *EXAMPLE.shape[1:])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    one = rank(context(model, x), "sensitivity")
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    other = rank(context(model, x, data=Samples(x, seed=1)), "sensitivity")
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    assert np.isfinite(one[0]).all()
    assert one[0].max() > 0


def test_frozen_weights_are_ranked_too() -> None:
    torch.manual_seed(0)
    model, x = image()
    free, _ = rank(context(model, x), "sensitivity")
    frozen, _ = rank(context(model.requires_grad_(False), x), "sensitivity")
    assert np.allclose(free, frozen, rtol=1e-5)


def test_outputs_without_a_gradient_are_said_and_size_decides() -> None:
    torch.manual_seed(0)

    class Label(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x))).argmax(1)

    said: list[str] = []
    model, x = Label(), torch.randn(32, 6)
    units, _ = rank(context(model, x, warn=said.append), "sensitivity")
    assert np.allclose(units, rank(context(model, x), "magnitude")[0])
    assert any("no output changes" in text for text in said)


def test_without_data_it_is_refused_and_it_is_the_default_with_data() -> None:
    model, x = linear()
    with pytest.raises(UsageError, match="sensitivity looks at data"):
        rank(context(model, x, data=None), "sensitivity")
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(64, 6)
    batches = [(x, torch.randint(4, (64,)))]
    kept = []
    told: dict[str, Any] = {"search": "oneshot", "training": compressor.Training(finetune_epochs=0), "round_to": 1}
    for rest in ({}, {"importance": "sensitivity"}):
        found = compressor.compress(model, x[:2], {"flops": "50%"}, data=(batches, batches), **told, **rest)
        kept.append(found.architecture.to_json())
    assert kept[0] == kept[1]


def test_the_outputs_that_count() -> None:
    x = torch.randn(3, requires_grad=True)
    y = x * 2
    assert differentiable_outputs({"logits": y, "state": [x * 3]})[0] is y
    assert len(differentiable_outputs((y, [x * 3, {"boxes": x * 4, "labels": torch.zeros(2)}]))) == 3
    assert differentiable_outputs([torch.zeros(3), None, "text"]) == []


class Forces(nn.Module):
    """The gradient of an energy that is linear, ``second first x``, by the forward itself: all samples alike."""

    def __init__(self, *, own: bool, beside: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(6, 10, bias=False), nn.Linear(10, 1, bias=False)
        self.own, self.beside = own, beside

    def forward(self, x: Tensor) -> Any:
        with torch.enable_grad() if self.own else nullcontext():
            x = x.detach().clone().requires_grad_()
            energy = self.second(self.first(x))
            forces = torch.autograd.grad(energy.sum(), x, create_graph=True)[0]
        return {"logits": forces, "energy": energy} if self.beside else forces


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_a_backward_pass_within_the_forward_counts_once(own: bool, beside: bool) -> None:
    model, x = Forces(own=own, beside=beside), torch.randn(5, 6)
    given = context(model, x)
    found = output_change(Ranking(given, batches=1))
    generator = torch.Generator().manual_seed(derive_seed(given.seed, "sensitivity"))
    signs = torch.randint(0, 2, (5, 6), generator=generator) * 2.0 - 1
    first, second = model.first.weight.detach(), model.second.weight.detach()[0]
    size = (second @ first).square().mean().sqrt()
    # By unit the change of what the signs sum up; twice, as both weights are masked that are read in a backward pass.
    expected = (2 * second * (first @ signs.sum(0)) / size).square()
    assert np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)
