"""Detection: losses of the model's own, precision, what is refused, and whole jobs."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

import compressor
from compressor.data import Data, from_loaders, load_data
from compressor.data.task import Task
from compressor.errors import DataError, TrainingError, UsageError
from compressor.train import TrainConfig, Trainer, evaluate, objective, recalibrate_batchnorm

pytest.importorskip("pycocotools")
sys.path.append(str(Path(__file__).parents[2] / "examples"))

BOXES = Task("detection", outputs=4)


class Backbone(nn.Module):
    """Maps of a half and a quarter of what ``stem`` gives."""

    out_channels = (24, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, 16, 2), layer(16, 24, 2), layer(24, 24, 1))
        self.further = nn.Sequential(layer(24, 32, 2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        return {"0": x, "1": self.further(x)}


def layer(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after, momentum=0.1), nn.ReLU()
    )


def detector(num_classes: int = 4) -> SSD:
    torch.manual_seed(0)
    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.2, 0.4, 0.6])
    return SSD(Backbone(), boxes, (48, 48), num_classes, image_mean=[0.4] * 3, image_std=[0.2] * 3, topk_candidates=50)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    from make_shapes import make

    folder = make(tmp_path_factory.mktemp("shapes"), train=16, val=6, side=48)
    return load_data(f"coco:{folder}")


def test_precision_by_hand() -> None:
    scorer = objective(BOXES).scorer
    assert scorer is not None
    there = {"boxes": torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), "labels": torch.tensor([1, 2])}

    def score(*rows: tuple[list[float], int, float], targets: dict[str, Tensor] = there) -> float | None:
        found = {
            "boxes": torch.tensor([box for box, _, _ in rows]).view(-1, 4),
            "labels": torch.tensor([label for _, label, _ in rows]),
            "scores": torch.tensor([sure for _, _, sure in rows]),
        }
        scored = scorer.of_all([scorer.of_batch([found], [targets])])
        return None if scored is None else scored.score

    one, two = ([0.0, 0, 10, 10], 1, 0.9), ([20.0, 20, 40, 40], 2, 0.8)
    assert score(one, two) == pytest.approx(1)
    assert score(one) == pytest.approx(0.5), "the mean goes over classes"
    assert score() == 0
    assert score(one, ([20.0, 20, 40, 40], 1, 0.8)) == pytest.approx(0.5), "found as another class"
    assert score(one, ([20.0, 20, 40, 30.6], 2, 0.8)) == pytest.approx((1 + 0.1) / 2), (
        "0.53 of it: enough for one overlap of ten"
    )
    assert score((one[0], 1, float("nan")), two) is None
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert score(one, targets=nothing) is None
    crowd = {"boxes": there["boxes"][:1], "labels": there["labels"][:1], "crowd_boxes": there["boxes"][1:]}
    assert score(one, two, targets={**crowd, "crowd_labels": torch.tensor([1])}) == pytest.approx(1)


def test_precision_does_not_depend_on_batches(data: Data) -> None:
    model = detector()
    Trainer(model, data, TrainConfig(epochs=4, batch_size=8, lr=0.02)).run()
    whole, parts = (evaluate(model, data.train, size, task=data.task) for size in (16, 5))
    assert whole.score == pytest.approx(parts.score)
    assert (whole.loss, whole.accuracy, whole.count) == (None, None, 16)
    assert (whole.metric.name, whole.metric.lower_is_better) == ("COCO mean average precision", False)
    assert not whole.lost


class Says(nn.Module):
    """Returns whatever it is made with, with a gradient where it can have one."""

    def __init__(self, said: Any) -> None:
        super().__init__()
        self.weight, self.said = nn.Parameter(torch.ones(())), said

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        return (
            self.said if not isinstance(self.said, dict) else {k: _scaled(v, self.weight) for k, v in self.said.items()}
        )


def _scaled(value: Any, weight: Tensor) -> Any:
    return value * weight if isinstance(value, Tensor) else value


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        (torch.zeros(()), "returned a Tensor; a detector returns a dict of losses in training mode"),
        ([], "returned a list; a detector returns a dict of losses in training mode"),
        ({}, "an empty dict"),
        (
            {"class": torch.ones(()), "box": torch.ones(3)},
            r"'box' among its losses, which is torch.float32 of shape \(3,\)",
        ),
        ({"class": torch.ones(()), "box": 1.0}, r"'box' among its losses"),
    ],
)
def test_losses_that_are_none_are_refused(data: Data, said: Any, refused: str) -> None:
    with pytest.raises((TrainingError, DataError), match=refused):
        Trainer(Says(said), data, TrainConfig(epochs=1, batch_size=8)).run()


def test_a_loss_that_is_nan_is_named_by_its_step(data: Data) -> None:
    with pytest.raises(TrainingError, match="became nan at step 1"):
        Trainer(Says({"box": torch.tensor(torch.nan)}), data, TrainConfig(epochs=1, batch_size=8)).run()


def test_what_is_no_detector_is_refused_in_evaluation(data: Data) -> None:
    for said in (torch.zeros(2), [{"boxes": torch.zeros(0, 4)}], []):
        with pytest.raises(
            DataError, match="a list with a dict of boxes, labels, scores for each image in evaluation mode"
        ):
            evaluate(Says(said), data.val, task=data.task)
    with pytest.raises(DataError, match="'boxes'"):
        objective(BOXES).check([], torch.zeros(3))


def test_nothing_to_distil(data: Data) -> None:
    model = detector()
    with pytest.raises(UsageError, match=r"Detectors are not distilled: .* Leave distill at 0"):
        Trainer(model, data, TrainConfig(epochs=1, distill=0.5), teacher=copy.deepcopy(model))
    for search, distill in (("figs", 0.5), ("supernet", 0.0)):
        before: list[str] = []
        with pytest.raises(UsageError, match=r"Detectors are not distilled: .* not supernet"):
            compressor.compress(
                model,
                data.example_inputs,
                {"flops": "50%"},
                data=data,
                search=search,
                training=compressor.Training(distill=distill),
                listeners=[lambda event, before=before: before.append(type(event).__name__)],
            )
        assert "StageBegan" not in before, "nothing has been done by then"


def test_statistics_are_taken_on_few_images_at_a_time(data: Data) -> None:
    model = detector().eval()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert recalibrate_batchnorm(model, data.train, batches=2) == 4
    evaluate(model, data.train, task=data.task)
    assert max(sizes) == 8


@pytest.mark.parametrize("search", ["oneshot", "figs", "dnarch"])
def test_whole_jobs(data: Data, search: str) -> None:
    model = detector()
    training = compressor.Training(search_epochs=2, finetune_epochs=2, batch_size=8, lr=0.02)
    result = compressor.compress(
        model, data.example_inputs, {"flops": "60%"}, search=search, data=data, training=training
    )
    (budget,) = result.report.budgets
    assert budget.reached <= 0.6 * budget.original
    found = result.report.accuracy
    assert found is not None
    assert found.metric == "COCO mean average precision"
    assert found.after_finetune is not None
    assert 0 <= found.after_finetune <= 1
    assert isinstance(result.model, SSD)
    (answer,) = result.model.eval()(data.example_inputs)
    assert set(answer) == {"boxes", "labels", "scores"}


def test_jobs_say_what_was_skipped(data: Data) -> None:
    from dataclasses import replace

    said = replace(data, remarks=("two boxes are empty",))
    training = compressor.Training(finetune_epochs=0)
    result = compressor.compress(
        detector(), data.example_inputs, {"flops": "90%"}, search="oneshot", data=said, training=training
    )
    assert "two boxes are empty" in result.report.warnings


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ssdlite320_mobilenet_v3_large",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "retinanet_resnet50_fpn_v2",
    ],
)
def test_detectors_of_torchvision(data: Data, name: str) -> None:
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=4)
    if hasattr(model.transform, "fixed_size") and model.transform.fixed_size:
        model.transform.fixed_size = (64, 64)
    model.transform.min_size, model.transform.max_size = (64,), 96
    few = from_loaders(*([next(iter(split.batches(4)))[0]] for split in (data.train, data.val)))
    training = compressor.Training(search_epochs=1, finetune_epochs=1, batch_size=4, lr=1e-3)
    result = compressor.compress(
        model, few.example_inputs, {"flops": "70%"}, search="figs", data=few, training=training
    )
    (budget,) = result.report.budgets
    assert budget.reached <= 0.7 * budget.original
    assert result.report.accuracy is not None
