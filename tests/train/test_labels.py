"""Several labels for each sample: the precision by its definition, the loss, a teacher, training and evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import compressor
from compressor.data import Data, from_tensors
from compressor.data.task import Task
from compressor.errors import DataError, TrainingError
from compressor.report.text import summary_text
from compressor.train import TrainConfig, Trainer, evaluate, objective
from compressor.train.objectives.distill import label_distillation_loss
from compressor.train.objectives.labels import average_precision, mean_average_precision

LABELS = Task("multilabel", outputs=3)


def by_thresholds(scores: list[float], applies: list[bool]) -> float:
    """The area under precision over recall as a sum of steps, one for every distinct score."""
    total, area, recall = sum(applies), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        returned = [right for score, right in zip(scores, applies, strict=True) if score >= threshold]
        reached = sum(returned) / total
        area += (reached - recall) * sum(returned) / len(returned)
        recall = reached
    return area


ranked = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=30)


@given(ranked.filter(lambda rows: any(applies for _, applies in rows)))
def test_precision_is_that_of_the_definition_in_any_order(rows: list[tuple[int, bool]]) -> None:
    scores, applies = [float(score) for score, _ in rows], [right for _, right in rows]
    found = average_precision(torch.tensor(scores), torch.tensor(applies))
    assert found == pytest.approx(by_thresholds(scores, applies), abs=1e-12)
    order = torch.tensor(scores).mul(7).sin().argsort()
    assert average_precision(torch.tensor(scores)[order], torch.tensor(applies)[order]) == found


def test_precision_of_good_and_bad_ranks() -> None:
    applies = torch.tensor([True, True, False, False])
    assert average_precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), applies) == 1.0
    assert average_precision(torch.tensor([1.0, 2.0, 3.0, 4.0]), applies) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert average_precision(torch.zeros(4), applies) == 0.5  # no rank at all finds what chance finds


def test_the_mean_is_over_labels_that_are_there_and_missing() -> None:
    scores = torch.tensor([[2.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 2.0]])
    targets = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]])
    assert mean_average_precision(scores, targets) == pytest.approx((1.0 + 0.5) / 2)
    assert mean_average_precision(scores, targets.bool()) == mean_average_precision(scores, targets.float())
    assert mean_average_precision(scores[:, 1:3], targets[:, 1:3]) is None
    assert mean_average_precision(torch.full_like(scores, torch.nan), targets) is None
    assert mean_average_precision(scores.sigmoid(), targets) == mean_average_precision(scores, targets)


def test_the_loss_is_the_cross_entropy_of_every_label() -> None:
    logits = torch.tensor([[0.0, 2.0], [-1.0, 3.0]])
    targets = torch.tensor([[True, False], [False, True]])
    likelihood = logits.sigmoid().where(targets, 1 - logits.sigmoid())
    for given_as in (targets, targets.float(), targets.long()):
        found = objective(LABELS).loss({"logits": logits}, given_as)
        torch.testing.assert_close(found, -likelihood.log().mean())
    smoothed = objective(LABELS, label_smoothing=0.2).loss(logits, targets)
    wrong = -(1 - likelihood).log().mean()
    torch.testing.assert_close(smoothed, 0.9 * -likelihood.log().mean() + 0.1 * wrong)


def test_what_is_no_label_is_refused() -> None:
    check = objective(LABELS).check
    check(torch.zeros(4, 3), torch.ones(4, 3))
    for targets, said in (
        (torch.ones(4, 2), "num_classes=2"),
        (torch.full((4, 3), 0.5), "other values than 0 and 1"),
        (torch.ones(4), "several labels"),
        ({}, "not a tensor"),
    ):
        with pytest.raises(DataError, match=said):
            check(torch.zeros(4, 3), targets)


def test_a_teacher_is_followed_label_by_label() -> None:
    teacher = torch.tensor([[0.5, -2.0, 1.0]])
    student = torch.zeros(1, 3, requires_grad=True)
    for temperature in (1.0, 4.0):
        assert float(label_distillation_loss(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-6)
        loss = label_distillation_loss(student, teacher, temperature)
        p, q = (teacher / temperature).sigmoid(), torch.tensor(0.5)
        divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        torch.testing.assert_close(loss.detach(), divergence.mean() * temperature**2)
    (slope,) = torch.autograd.grad(loss, student)
    assert torch.equal(slope.sign(), -teacher.sign())
    huge = label_distillation_loss(torch.full((1, 3), 200.0), torch.full((1, 3), -200.0), 1.0)
    assert bool(huge.isfinite())
    with pytest.raises(TrainingError, match="different shapes"):
        label_distillation_loss(student, teacher[:, :2], 1.0)


def labelled(count: int = 120) -> Data:
    """What applies is written in the inputs."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return from_tensors((x, torch.stack([x[:, 0] > 0, x[:, 1] + x[:, 2] > 1, x[:, 3] > -1], 1)))


def test_evaluation_takes_all_batches_together() -> None:
    data, model = labelled(), nn.Linear(4, 3)
    whole, parts = (evaluate(model, data.train, size, task=data.task) for size in (200, 7))
    assert whole.accuracy is None
    assert whole.metric.name == "mean average precision"
    assert not whole.metric.lower_is_better
    assert whole.score == pytest.approx(parts.score, abs=1e-6)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)
    x, y = next(iter(data.train.batches(200)))
    assert whole.score == pytest.approx(mean_average_precision(model(x), y), abs=1e-6)
    own = evaluate(model, data.train, task=data.task, loss_fn=lambda out, _: out.mean() * 0)
    assert (own.loss, own.score, own.metric.name) == (0.0, whole.score, "mean average precision")
    other = evaluate(nn.Linear(4, 1), data.train, task=data.task, loss_fn=lambda out, _: out.mean() * 0)
    assert other.metric.name == "loss"


@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_training_ranks_the_labels(distill: float) -> None:
    torch.manual_seed(0)
    data, model = labelled(), nn.Linear(4, 3)
    teacher = nn.Linear(4, 3)
    Trainer(teacher, data, TrainConfig(epochs=20, batch_size=16, lr=0.5)).run()
    Trainer(model, data, TrainConfig(epochs=20, batch_size=16, lr=0.5, distill=distill), teacher=teacher).run()
    found = evaluate(model, data.val, task=data.task).score
    assert found is not None
    assert found > 0.95


@pytest.mark.parametrize("search", ["oneshot", "figs", "dnarch"])
def test_a_network_for_labels_is_compressed(search: str) -> None:
    data = labelled()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    x = next(iter(data.val.batches(1)))[0]
    result = compressor.compress(
        model, x, {"flops": "50%"}, data=data, search=search, search_epochs=1, finetune_epochs=1, distill=0.5
    )
    score = result.report.accuracy
    assert score is not None
    assert score.metric == "mean average precision"
    assert score.before == pytest.approx(evaluate(model, data.val, task=data.task).score)
    assert result.report.prediction_error is None
    text = summary_text(result.report)
    assert "Precision\n" in text
    assert "mean average precision, val of 12" in text
    assert "accuracy" not in text.lower().replace("accuracy is not", "")


def test_searches_rank_and_train_by_the_loss_of_the_task() -> None:
    """Cross entropy of labels as class probabilities would be another number, and another gradient."""
    from compressor.graph import capture
    from compressor.search.base import SearchContext
    from compressor.search.importance.base import Ranking
    from compressor.search.importance.taylor import taylor

    data = labelled()
    model = nn.Sequential(nn.Flatten(), nn.Linear(np.prod(data.input_shape).item(), 8), nn.ReLU(), nn.Linear(8, 3))
    graph = capture(model, data.example_inputs)

    def ranked(loss_fn: object) -> Tensor:
        context = SearchContext(model, graph, [], data=data, loss_fn=loss_fn)  # type: ignore[arg-type]
        return torch.as_tensor(taylor(Ranking(context, batches=4))[0])

    told = ranked(objective(data.task).loss)
    assert torch.equal(ranked(None), told)
    assert not torch.allclose(ranked(objective(Task()).loss), told)
