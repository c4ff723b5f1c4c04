"""Draw a small data set of discs, squares and triangles on textured ground, with their boxes and masks.

    python examples/make_shapes.py shapes --train 200 --val 60

The folder is one of COCO's (``compress --data coco:shapes``), and one of images and masks
(``compress --data segmentation:shapes``). The same numbers give the same files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("disc", "square", "triangle")
_SEEDS = {"train": 1, "val": 2, "test": 3}


def make(folder: str | Path, *, train: int = 200, val: int = 60, test: int = 0, side: int = 96) -> Path:
    """Write ``FOLDER/annotations/instances_PART.json``, ``FOLDER/PART/images`` and ``FOLDER/PART/masks``.

    Args:
        train, val, test: images in each part; a part of none is left out.
        side: the shorter side of an image in pixels; the longer one is up to a third longer.
    """
    root = Path(folder)
    for part, count in (("train", train), ("val", val), ("test", test)):
        if count:
            _write(root, part, count, side, np.random.default_rng(_SEEDS[part]))
    (root / "classes.txt").write_text("\n".join(("ground", *CLASSES)) + "\n", encoding="utf-8")
    return root


def _write(root: Path, part: str, count: int, side: int, draw: np.random.Generator) -> None:
    for name in ("images", "masks"):
        (root / part / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels, mask, found = scene(side, draw)
        name = f"{number:05d}.png"
        Image.fromarray(pixels).save(root / part / "images" / name)
        Image.fromarray(mask).save(root / part / "masks" / name)
        height, width = mask.shape
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations += [{"id": len(annotations) + i, "image_id": number, **row} for i, row in enumerate(found, 1)]
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(document), encoding="utf-8")


def scene(side: int, draw: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[dict[str, Any]]]:
    """Pixels (H, W, 3), the class of each pixel (H, W), 0 for the ground, and annotations."""
    long = int(side * draw.uniform(1, 4 / 3))
    height, width = (side, long) if draw.random() < 0.5 else (long, side)
    rows, columns = np.mgrid[:height, :width].astype(float)
    ground = np.kron(draw.uniform(0, 1, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))[:height, :width]
    pixels = 40 + 100 * ground + draw.normal(0, 12, (height, width, 3))
    mask = np.zeros((height, width), np.uint8)
    found: list[dict[str, Any]] = []
    for _ in range(int(draw.integers(1, 4))):
        kind, size = int(draw.integers(1, 4)), draw.uniform(side / 9, side / 4)
        y, x = draw.uniform(size, height - size), draw.uniform(size, width - size)
        inside = _inside(kind, rows - y, columns - x, size)
        if (mask[inside] != 0).any():
            continue  # what is hidden in part is not worth its box
        pixels[inside] = draw.uniform(60, 255, 3) + draw.normal(0, 12, (int(inside.sum()), 3))
        mask[inside] = kind
        at, along = np.nonzero(inside)
        box = [int(along.min()), int(at.min()), int(np.ptp(along)) + 1, int(np.ptp(at)) + 1]
        found.append({"category_id": kind, "bbox": box, "area": int(inside.sum()), "iscrowd": 0})
    return pixels.clip(0, 255).astype(np.uint8), mask, found


def _inside(kind: int, down: NDArray[np.float64], across: NDArray[np.float64], size: float) -> NDArray[np.bool_]:
    """Which pixels belong to a shape of a class, at these distances from its centre."""
    if kind == 1:
        return np.hypot(down, across) < size
    if kind == 2:
        return np.maximum(abs(down), abs(across)) < 0.85 * size
    return (abs(down) < size) & (abs(across) < (down + size) / 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    for part, count in (("train", 200), ("val", 60), ("test", 0)):
        parser.add_argument(f"--{part}", type=int, default=count)
    parser.add_argument("--side", type=int, default=96)
    options = vars(parser.parse_args())
    print(f"wrote {make(options.pop('folder'), **options)}")
