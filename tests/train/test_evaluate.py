"""Evaluation counts right and leaves the model alone; so does the recalibration of BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.data.task import Task
from compressor.errors import DataError
from compressor.train import evaluate, recalibrate_batchnorm
from tests.train.tiny import RandomSplit, fingerprint, tiny_model


class Fixed:
    """Batches given outright."""

    def __init__(self, *batches: tuple[Tensor, Tensor]) -> None:
        self.given = batches

    def __len__(self) -> int:
        return sum(len(targets) for _, targets in self.given)

    def batches(self, batch_size: int, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.given)


def test_accuracy_and_loss_do_not_depend_on_the_batches() -> None:
    model, split = tiny_model(), RandomSplit(50)
    model.train()
    bits = fingerprint(model)
    whole, parts = evaluate(model, split, 50), evaluate(model, split, 7)
    assert whole.count == parts.count == 50
    assert whole.accuracy == parts.accuracy
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)
    with torch.no_grad():
        logits = model.eval()(split.inputs)
    assert whole.accuracy == int((logits.argmax(1) == split.targets).sum()) / 50
    assert whole.loss == pytest.approx(nn.functional.cross_entropy(logits, split.targets).item(), rel=1e-5)
    assert fingerprint(model) == bits


def test_forward_of_ones_own() -> None:
    model, split = tiny_model(), RandomSplit(20)
    masked = evaluate(model, split, forward=lambda m, x: m(x) * torch.tensor([0.0, 0.0, 0.0, 1e6]))
    assert masked.accuracy is not None
    assert masked.loss > 100.0
    assert recalibrate_batchnorm(model, split, forward=lambda m, x: m(x + 100.0)) == 1
    assert model[1].running_mean.abs().max() > 5.0


def test_modes_come_back_even_after_a_failure() -> None:
    model = tiny_model()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    evaluate(model, RandomSplit(8))
    with pytest.raises(RuntimeError):
        evaluate(model, Fixed((torch.randn(2, 5, 8, 8), torch.zeros(2, dtype=torch.long))))
    assert [module.training for module in model.modules()] == modes


def test_targets_that_are_no_classes() -> None:
    inputs = torch.randn(4, 3, 8, 8)
    soft = evaluate(tiny_model(), Fixed((inputs, torch.full((4, 4), 0.25))))
    assert soft.accuracy is None
    own = evaluate(tiny_model(), Fixed((inputs, torch.zeros(4, 4))), loss_fn=nn.functional.mse_loss)
    assert (own.accuracy, own.count) == (None, 4)
    for targets, message in (
        (torch.zeros(4, 2), "no class probabilities"),
        (torch.zeros(4, 2, dtype=torch.long), "expected"),
        (torch.full((4,), 9), "num_classes=10"),
    ):
        with pytest.raises(DataError, match=message):
            evaluate(tiny_model(), Fixed((inputs, targets)))
    with pytest.raises(DataError, match="empty"):
        evaluate(tiny_model(), Fixed())


def test_pixels_have_classes_of_their_own() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    logits[:, 1] = 1.0
    targets = torch.ones(2, 4, 4, dtype=torch.int32)
    targets[0, :2] = 0
    found = evaluate(nn.Identity(), Fixed((logits, targets)))
    assert found.accuracy == 0.75
    assert found.count == 2


def norm_net() -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Flatten(),
        nn.BatchNorm1d(144), nn.LazyBatchNorm1d(track_running_stats=False),
    )  # fmt: skip


def test_recalibrated_statistics_are_the_mean_over_batches() -> None:
    torch.manual_seed(0)
    model, split = norm_net(), RandomSplit(96)
    model(split.inputs)
    model[5].eval()  # frozen so
    kept = model[5].running_mean.clone(), model[5].running_var.clone()
    with torch.no_grad():
        model[0].running_mean.fill_(100.0)
    momenta = [getattr(module, "momentum", None) for module in model]
    modes = [module.training for module in model]
    weights = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    assert recalibrate_batchnorm(model, split, batches=3, batch_size=32) == 2
    assert torch.equal(model[5].running_mean, kept[0])
    assert torch.equal(model[5].running_var, kept[1])
    assert torch.equal(torch.get_rng_state(), state), "dropout was running"
    expected = split.inputs.mean(dim=(0, 2, 3))
    torch.testing.assert_close(model[0].running_mean, expected)
    assert model[0].num_batches_tracked == 3
    assert [getattr(module, "momentum", None) for module in model] == momenta
    assert [module.training for module in model] == modes
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), weights, strict=True))


def test_recalibration_is_repeatable() -> None:
    first, second = tiny_model(), tiny_model(seed=0)
    second[1].running_mean.fill_(5.0)
    for model in (first, second):
        recalibrate_batchnorm(model, RandomSplit(64), batches=2, batch_size=16)
    assert fingerprint(first) == fingerprint(second)


def test_layers_out_of_reach_and_failures_keep_their_statistics() -> None:
    class Aux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.main(self.aux(inputs)) if self.training else self.main(inputs)

    model = Aux()
    model.aux.running_mean.fill_(2.0)
    assert recalibrate_batchnorm(model, RandomSplit(16)) == 1
    assert model.aux.running_mean.eq(2.0).all()
    before = fingerprint(model)
    with pytest.raises(RuntimeError):
        recalibrate_batchnorm(model, Fixed((torch.randn(2, 7, 4, 4), torch.zeros(2))))
    with pytest.raises(DataError, match="no batch"):
        recalibrate_batchnorm(model, Fixed())
    assert fingerprint(model) == before
    assert (model.main.momentum, model.aux.momentum) == (0.1, 0.1)


def test_model_without_batchnorm() -> None:
    assert recalibrate_batchnorm(nn.Linear(2, 2), RandomSplit(4)) == 0


class Force(nn.Module):
    """Minus the gradient of an energy; that gradients are on is the caller's business."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        energy = self.layers(x.requires_grad_()).sum()
        return -torch.autograd.grad(energy, x, create_graph=True)[0]


class SwitchesOn(Force):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return super().forward(x).detach()


class ForTheLoss(Force):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.layers(x.requires_grad_()), x


def of_the_loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    energy, x = outputs
    return nn.functional.mse_loss(-torch.autograd.grad(energy.sum(), x, create_graph=True)[0], targets)


@pytest.mark.parametrize(("made", "loss"), [(Force, None), (SwitchesOn, None), (ForTheLoss, of_the_loss)])
def test_forwards_and_losses_that_take_gradients_are_evaluated_with_them(made: type[Force], loss: Any) -> None:
    torch.manual_seed(0)
    model = made()
    given = [(torch.randn(5, 4), torch.randn(5, 4)) for _ in range(3)]
    recalibrate_batchnorm(model, Fixed(*given), batch_size=5)
    assert int(model.layers[1].num_batches_tracked) == 3  # the batch that failed half way counts once
    seen = torch.cat([x for x, _ in given])
    hidden = model.layers[0](seen)
    assert torch.allclose(model.layers[1].running_mean, hidden.detach().mean(0), atol=1e-6)
    bits = fingerprint(model)
    found = evaluate(model, Fixed(*given), loss_fn=loss, task=Task("regression"))
    model.eval()
    expected = [(loss or nn.functional.mse_loss)(model(x.clone()), y).item() for x, y in given]
    assert found.loss == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert fingerprint(model) == bits
    assert not any(x.requires_grad for x, _ in given)
    assert all(p.grad is None for p in model.parameters())


def test_what_raises_either_way_raises_what_it_raised_without_gradients() -> None:
    def forward(model: nn.Module, inputs: Any) -> Tensor:
        raise RuntimeError(f"gradients {torch.is_grad_enabled()}")

    with pytest.raises(RuntimeError, match="gradients False"):
        evaluate(tiny_model(), RandomSplit(8), forward=forward)
