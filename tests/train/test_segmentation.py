"""Segmentation: overlap by hand, pixels that do not count, auxiliary heads, other sizes, and a whole job."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import compressor
from compressor.data import Data, from_tensors
from compressor.data.task import IGNORED, Task
from compressor.errors import DataError, UsageError
from compressor.train import TrainConfig, Trainer, evaluate, objective

MASKS = Task("segmentation", dense=True, outputs=3)


def one_hot(classes: Tensor, count: int = 3) -> Tensor:
    """(N, H, W) to logits (N, count, H, W)."""
    return functional.one_hot(classes, count).movedim(-1, 1).float()


def scenes(count: int = 40) -> Data:
    """Three levels of gray with some noise, and a strip that does not count."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(3, (count, 4, 4), generator=generator).repeat_interleave(2, 1).repeat_interleave(2, 2)
    x = masks[:, None].float() - 1 + 0.2 * torch.randn(count, 1, 8, 8, generator=generator)
    masks[:, 0] = 255
    return from_tensors((x, masks), task="segmentation")


def test_overlap_by_hand() -> None:
    scorer = objective(MASKS).scorer
    assert scorer is not None
    wanted = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 255]]])
    said = torch.tensor([[[0, 1, 1, 1], [0, 0, 0, 2]]])
    found = scorer.of_all([scorer.of_batch(one_hot(said), wanted)])
    assert found is not None
    # Class 0: 3 of 5; class 1: 2 of 4; class 2 is said where nothing counts, and occurs nowhere else.
    assert found.score == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert found.accuracy == pytest.approx(5 / 7)
    other = scorer.of_batch({"out": one_hot(said), "aux": one_hot(wanted.clamp_max(2))}, wanted)
    assert torch.equal(other, scorer.of_batch(one_hot(said), wanted))
    assert scorer.of_all([scorer.of_batch(one_hot(said), torch.full_like(wanted, 255))]) is None


def test_overlap_is_that_of_the_whole_split_whatever_the_batches() -> None:
    data = scenes()
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1))
    whole, parts = (evaluate(model, data.train, size, task=data.task) for size in (100, 3))
    assert whole.score == pytest.approx(parts.score, abs=1e-12)
    assert whole.accuracy == pytest.approx(parts.accuracy, abs=1e-12)
    assert whole.metric.name == "mean intersection over union"
    x, y = next(iter(data.train.batches(100)))
    said = model(x).argmax(1)
    each = [float(((said == c) & (y == c)).sum() / (((said == c) & (y != IGNORED)) | (y == c)).sum()) for c in range(3)]
    assert whole.score == pytest.approx(sum(each) / 3, abs=1e-6)


def test_the_loss_counts_what_counts() -> None:
    goal = objective(MASKS)
    logits, wanted = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(3, (2, 4, 4))
    wanted[0] = 255
    assert float(goal.loss(logits, wanted).detach()) == pytest.approx(
        float(functional.cross_entropy(logits[1:], wanted[1:]).detach())
    )
    assert goal.mean_over(logits, wanted) == 16
    both = goal.loss({"out": logits, "aux": 2 * logits}, wanted)
    expected = functional.cross_entropy(logits[1:], wanted[1:]) + 0.5 * functional.cross_entropy(
        2 * logits[1:], wanted[1:]
    )
    assert float(both.detach()) == pytest.approx(float(expected.detach()))
    nothing = goal.loss(logits, torch.full_like(wanted, 255))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()
    dense = objective(Task(dense=True)).loss(logits, torch.full_like(wanted, IGNORED))
    assert float(dense.detach()) == 0


def test_logits_of_another_size_are_brought_to_that_of_the_masks() -> None:
    goal = objective(MASKS)
    wanted = torch.tensor([[[0, 0, 2, 2], [0, 0, 2, 2]]])
    logits = one_hot(torch.tensor([[[0, 2]]])) * 9
    goal.check(logits, wanted)
    assert float(goal.loss(logits, wanted)) < 0.5
    assert goal.scorer is not None
    found = goal.scorer.of_all([goal.scorer.of_batch(logits, wanted)])
    assert found is not None
    assert found.score == 1.0
    with pytest.raises(DataError, match="class 7"):
        goal.check(logits, wanted.clamp_min(7))
    with pytest.raises(DataError, match="expected"):
        goal.check(torch.zeros(1, 3), wanted)
    with pytest.raises(DataError, match="no masks"):
        from_tensors((torch.zeros(4, 1, 8, 8), torch.zeros(4, 8, 8)), task="segmentation")
    with pytest.raises(UsageError, match="segmentation"):
        from_tensors((torch.zeros(4, 1, 8, 8), torch.zeros(4, 8, 8)), task="segmentations")


def test_255_is_a_class_where_there_are_so_many() -> None:
    goal = objective(Task("segmentation", dense=True, outputs=256))
    wanted = torch.full((1, 2, 2), 255)
    logits = torch.zeros(1, 256, 2, 2)
    logits[:, 255] = 20
    assert float(goal.loss(logits, wanted)) < 1e-3
    assert goal.scorer is not None
    found = goal.scorer.of_all([goal.scorer.of_batch(logits, wanted)])
    assert found is not None
    assert found.score == 1.0


class Two(nn.Module):
    """Returns what torchvision's segmentation models return."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head, self.further = nn.Conv2d(16, 3, 3, padding=1), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        return {"out": self.head(x), "aux": self.further(x)}


@pytest.mark.parametrize("search", ["oneshot", "figs"])
def test_a_whole_job(search: str) -> None:
    torch.manual_seed(0)
    data = scenes()
    model = Two()
    Trainer(model, data, TrainConfig(epochs=6, batch_size=12, lr=0.2)).run()
    training = compressor.Training(search_epochs=2, finetune_epochs=3, batch_size=12, lr=0.1, distill=0.5)
    result = compressor.compress(
        model, data.example_inputs, {"flops": "60%"}, search=search, data=data, training=training
    )
    found = result.report.accuracy
    assert found is not None
    assert found.metric == "mean intersection over union"
    assert found.before is not None
    assert found.before > 0.7
    assert found.after_finetune is not None
    assert found.after_finetune > 0.6
    assert result.model.body[0].out_channels < 16
