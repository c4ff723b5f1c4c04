"""Detection: the model computes the loss itself, in training mode, and is judged by COCO's mean average precision."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compressor.data.boxes import are_boxes
from compressor.errors import DataError, MissingDependencyError, TrainingError
from compressor.train.objectives.scorers import Scored

_FOUND = ("boxes", "labels", "scores")
_CURE = "Use a detector such as torchvision's, or pass a loss_fn(outputs, targets)"


def summed_losses(outputs: Any, targets: Any) -> Tensor:
    """The sum of the losses that a detector returns in training mode.

    Raises:
        TrainingError: it returned something else than a dict of scalars.
    """
    if not isinstance(outputs, Mapping) or not outputs:
        what = "an empty dict" if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
        raise TrainingError(
            f"The model returned {what} in training mode; a detector returns a dict of losses there, which are summed. "
            f"{_CURE}."
        )
    for name, loss in outputs.items():
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            shown = f"{loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TrainingError(
                f"The model returned {name!r} among its losses, which is {shown} and no scalar. {_CURE}."
            )
    losses: list[Tensor] = [loss.float().reshape(()) for loss in outputs.values()]
    return torch.stack(losses).sum()


def check_boxes(outputs: Any, targets: Any) -> None:
    """Refuse what is neither losses nor detections, or targets without boxes.

    Raises:
        DataError: targets that are not a dict with boxes and labels for each image, or detections that are not.
        TrainingError: as ``summed_losses`` does.
    """
    if not are_boxes(targets):
        raise DataError(
            f"Targets are a {type(targets).__name__}; a detector needs a list with a dict for each image that has "
            "'boxes' (n, 4), left, top, right and bottom in pixels, and 'labels' (n,)."
        )
    if isinstance(outputs, Mapping):
        summed_losses(outputs, targets)
        return
    found = isinstance(outputs, (list, tuple)) and all(
        isinstance(each, Mapping) and all(isinstance(each.get(key), Tensor) for key in _FOUND) for each in outputs
    )
    if not found or len(outputs) != len(targets):
        raise DataError(
            f"The model returned a {type(outputs).__name__}; a detector returns a dict of losses in training mode, and "
            f"a list with a dict of {', '.join(_FOUND)} for each image in evaluation mode. {_CURE}."
        )


class BoxPrecision:
    """COCO's mean average precision: over classes, and over least overlaps of 0.5 to 0.95.

    The evaluation is that of pycocotools; boxes around crowds count neither way.
    """

    def of_batch(self, outputs: Any, targets: Any) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]] | None:
        """For each image what was found and what is there."""
        if not are_boxes(targets) or isinstance(outputs, Mapping):
            return None
        return [
            (
                {key: found[key].detach().float().cpu() for key in _FOUND},
                {key: value.cpu() for key, value in there.items() if isinstance(value, Tensor)},
            )
            for found, there in zip(outputs, targets, strict=True)
        ]

    def of_all(self, kept: list[Any]) -> Scored | None:
        """None where no image has anything in it; a score of None for detections that are NaN.

        Raises:
            MissingDependencyError: pycocotools is not installed.
        """
        images = [pair for batch in kept for pair in batch]
        if any(not bool(value.isfinite().all()) for found, _ in images for value in found.values()):
            return Scored(None)
        there = [row for number, (_, target) in enumerate(images, 1) for row in _there(number, target)]
        if not any(not row["iscrowd"] for row in there):
            return None
        found = [row for number, (detected, _) in enumerate(images, 1) for row in _found(number, detected)]
        return Scored(_coco_precision(len(images), there, found))


def _there(number: int, target: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    rows = []
    crowds = target.get("iscrowd", torch.zeros(len(target["labels"]))).bool().tolist()
    for box, label, crowd in zip(target["boxes"].tolist(), target["labels"].tolist(), crowds, strict=True):
        rows.append(_row(number, box, label, iscrowd=int(crowd)))
    if "crowd_boxes" in target:
        for box, label in zip(target["crowd_boxes"].tolist(), target["crowd_labels"].tolist(), strict=True):
            rows.append(_row(number, box, label, iscrowd=1))
    return rows


def _found(number: int, detected: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    values = zip(*(detected[key].tolist() for key in _FOUND), strict=True)
    return [_row(number, box, int(label), score=score) for box, label, score in values]


def _row(number: int, box: list[float], label: int, **more: Any) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {
        "image_id": number,
        "category_id": label,
        "bbox": [left, top, width, height],
        "area": width * height,
        **more,
    }


def _coco_precision(images: int, there: list[dict[str, Any]], found: list[dict[str, Any]]) -> float:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingDependencyError(
            "Detectors are judged by pycocotools, which is not installed; pip install 'compressor[detection]'."
        ) from error
    if not found:
        return 0.0  # which pycocotools does not take
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
        truth, said = COCO(), COCO()
        for coco, rows in ((truth, there), (said, found)):
            coco.dataset = {
                "images": [{"id": number} for number in range(1, images + 1)],
                "annotations": [{"id": number, **row} for number, row in enumerate(rows, 1)],
                "categories": [{"id": label} for label in sorted({row["category_id"] for row in there})],
            }
            coco.createIndex()
        judge = COCOeval(truth, said, "bbox")
        judge.evaluate()
        judge.accumulate()
    precision = torch.as_tensor(judge.eval["precision"])[..., 0, -1]  # all areas, most detections an image
    return float(precision[precision > -1].mean())
