"""Losses and metrics by task: values by hand, what is refused, and that training and evaluation use them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compressor.data import Data, from_tensors
from compressor.data.task import IGNORED, Task
from compressor.errors import DataError
from compressor.train import TrainConfig, Trainer, evaluate, objective

FIELD = Task("regression", dense=True, relative=True, outputs=1)
VALUES = Task("regression", outputs=1)


def field_data(count: int = 40) -> Data:
    """A field that one 3x3 convolution can give exactly."""
    x = torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    return from_tensors((x, x[:, 0] * 2 - x[:, 1]))


def test_relative_error_by_hand_and_with_or_without_a_channel_axis() -> None:
    goal = objective(FIELD)
    targets = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])
    outputs = torch.tensor([[[3.0, 5.0]], [[0.0, 0.0]]])
    assert float(goal.loss(outputs, targets)) == pytest.approx((1 / 5 + 2 / 2) / 2)
    assert float(goal.loss(outputs[:, None], targets)) == pytest.approx(0.6)
    assert float(goal.loss(outputs, targets[:, None])) == pytest.approx(0.6)
    assert float(goal.loss({"logits": outputs}, targets * 1000)) == pytest.approx(1, abs=2e-3)
    assert (goal.metric.name, goal.metric.lower_is_better) == ("relative L2 error", True)


def test_the_gradient_is_finite_where_the_error_is_zero() -> None:
    outputs = torch.ones(2, 1, 3, requires_grad=True)
    objective(FIELD).loss(outputs, torch.ones(2, 1, 3)).backward()
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())


def test_squared_error() -> None:
    goal = objective(VALUES)
    assert float(goal.loss(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0]))) == pytest.approx(2.5)
    assert goal.metric.name == "mean squared error"


def test_targets_of_another_shape_are_refused() -> None:
    for task in (FIELD, VALUES):
        with pytest.raises(DataError, match=r"\(4, 1, 8, 8\), but the model's output has \(4, 10\)"):
            objective(task).check(torch.zeros(4, 10), torch.zeros(4, 1, 8, 8))
        objective(task).check(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(DataError, match="not a tensor"):
        objective(FIELD).check(torch.zeros(4, 1), {})


def test_evaluation_names_the_metric() -> None:
    data = field_data()
    model = nn.Conv2d(2, 1, 3, padding=1)
    found = evaluate(model, data.val, task=data.task)
    assert found.accuracy is None
    assert found.score == found.loss
    assert (found.metric.name, found.metric.lower_is_better) == ("relative L2 error", True)
    x, y = next(iter(data.val.batches(100)))
    error = (model(x)[:, 0] - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)
    assert found.loss == pytest.approx(float(error.detach().mean()), rel=1e-5)
    own = evaluate(model, data.val, task=data.task, loss_fn=lambda out, y: (out[:, 0] - y).abs().mean())
    assert own.metric.name == "loss"
    assert own.score == pytest.approx(float((model(x)[:, 0] - y).detach().abs().mean()), rel=1e-5)


def test_dense_classes_and_ignored_positions() -> None:
    x = torch.randn(12, 3, 4, generator=torch.Generator().manual_seed(1))
    classes = x.argmax(1)
    classes[:, 0] = IGNORED
    data = from_tensors((x, classes))
    assert data.task.dense
    found = evaluate(nn.Identity(), data.val, task=data.task)
    assert (found.accuracy, found.score) == (1.0, 1.0)
    assert found.metric.name == "top-1 accuracy per position"


def test_training_follows_the_task_and_a_loss_of_ones_own_overrides_it() -> None:
    data = field_data()
    start = nn.Conv2d(2, 1, 3, padding=1)
    config = TrainConfig(epochs=30, batch_size=12, lr=0.05)
    model = copy.deepcopy(start)
    before = evaluate(model, data.val, task=data.task).loss
    Trainer(model, data, config).run()
    assert evaluate(model, data.val, task=data.task).loss < before / 5
    other = copy.deepcopy(start)
    Trainer(other, data, config, loss_fn=lambda out, _: out.square().mean()).run()
    x = next(iter(data.val.batches(10)))[0]
    assert float(other(x).abs().mean()) < 0.1 * float(start(x).abs().mean())


def test_distillation_of_values_follows_the_teacher() -> None:
    data = field_data()
    teacher = nn.Conv2d(2, 1, 3, padding=1)
    model = nn.Conv2d(2, 1, 3, padding=1)

    def distance() -> Tensor:
        x = next(iter(data.val.batches(10)))[0]
        return (model(x) - teacher(x)).detach().norm() / teacher(x).detach().norm()

    before = distance()
    Trainer(model, data, TrainConfig(epochs=30, batch_size=12, lr=0.05, distill=1.0), teacher=teacher).run()
    assert distance() < before / 5
