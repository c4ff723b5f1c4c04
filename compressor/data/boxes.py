"""Boxes in images: what a detector is trained with, and what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

LEAST_SIDE = 0.1
"""Pixels: a box with a shorter side may have no area after rounding, which detectors refuse."""


@dataclass(frozen=True)
class Boxes:
    """What is in one image.

    Attributes:
        corners: (n, 4) float32: left, top, right and bottom in pixels.
        labels: (n,) int64 from 1; 0 is the background.
        crowd: (n,) bool: boxes around many of a kind, which are not learned, and count neither way in a score.
        areas: (n,) float32, of the objects and not of their boxes, in square pixels.
    """

    corners: Tensor
    labels: Tensor
    crowd: Tensor
    areas: Tensor

    def targets(self, image_id: int) -> dict[str, Tensor]:
        """As torchvision's detectors take them; what they do not know is there for the score."""
        single = ~self.crowd
        return {
            "boxes": self.corners[single],
            "labels": self.labels[single],
            "area": self.areas[single],
            "image_id": torch.tensor(image_id),
            "crowd_boxes": self.corners[self.crowd],
            "crowd_labels": self.labels[self.crowd],
        }

    def mirrored(self, width: int) -> Boxes:
        """In the mirror image."""
        left, top, right, bottom = self.corners.unbind(1)
        return replace(self, corners=torch.stack([width - right, top, width - left, bottom], 1))

    def within(self, left: int, top: int, right: int, bottom: int) -> Boxes:
        """In a part of the image: those whose centre is in it, cut off at its edges."""
        centres = (self.corners[:, :2] + self.corners[:, 2:]) / 2
        low, high = torch.tensor([left, top]).float(), torch.tensor([right, bottom]).float()
        inside = ((centres >= low) & (centres < high)).all(1)
        corners = self.corners[inside] - low.repeat(2)
        corners = torch.minimum(corners.clamp_min(0), (high - low).repeat(2))
        chosen = Boxes(corners, self.labels[inside], self.crowd[inside], self.areas[inside])
        wide = (corners[:, 2:] - corners[:, :2] >= LEAST_SIDE).all(1)
        return Boxes(corners[wide], chosen.labels[wide], chosen.crowd[wide], chosen.areas[wide])


def are_boxes(targets: Any) -> TypeGuard[Sequence[Mapping[str, Tensor]]]:
    """Whether targets are those of a detector: for every image a mapping with ``boxes`` and ``labels``."""
    return (
        isinstance(targets, (list, tuple))
        and bool(targets)
        and all(isinstance(each, Mapping) and {"boxes", "labels"} <= set(each) for each in targets)
    )
