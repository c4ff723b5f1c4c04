"""Files of COCO's format whose boxes mean something else are refused, or said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from compressor.data import load_data
from compressor.errors import DataError

COUNT = 10


def write(root: Path, part: str, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> None:
    document: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(COUNT)],
        "annotations": [{"id": n, "image_id": n, "category_id": 7, "bbox": [4, 5, 10, 8]} for n in range(COUNT)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    change(document)
    (root / part).mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        Image.new("RGB", (40, 30)).save(root / part / f"{number}.png")
    (root / f"{part}.json").write_text(json.dumps(document))


def boxes(document: dict[str, Any], *corners: float, of: int = COUNT) -> None:
    for row in document["annotations"][:of]:
        row["bbox"] = list(corners)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["annotations"].clear(), "has no box that can be used"),
        (lambda d: boxes(d, 1, 1, 0, 0), "has no box that can be used.*skipped 10 boxes that are empty"),
        (lambda d: [row.update(iscrowd=1) for row in d["annotations"]], "has no box that can be used"),
        (lambda d: [row.update(category_id="7") for row in d["annotations"]], "skipped 10 annotations of a category"),
        (lambda d: boxes(d, 0.1, 0.1, 0.5, 0.4), "all lie within the first pixel"),
    ],
)
@pytest.mark.parametrize("part", ["train", "val"])
def test_nothing_to_learn(tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str, part: str) -> None:
    for each in ("train", "val"):
        write(tmp_path, each, *([change] if each == part else []))
    with pytest.raises(DataError, match=f"{part}.json.*{said}"):
        load_data(f"coco:{tmp_path}")


def test_a_test_split_may_have_no_boxes(tmp_path: Path) -> None:
    write(tmp_path, "train")
    write(tmp_path, "test", lambda d: d["annotations"].clear())
    assert load_data(f"coco:{tmp_path}").test is not None


def test_categories_mean_the_same_in_all_files(tmp_path: Path) -> None:
    write(tmp_path, "train")
    write(tmp_path, "val", lambda d: d["categories"][0].update(name="dog"))
    with pytest.raises(DataError, match=r"val\.json' calls the category 7 'dog', .*train\.json' calls it 'cat'"):
        load_data(f"coco:{tmp_path}")


@pytest.mark.parametrize(("of", "said"), [(COUNT, True), (2, True), (1, False), (0, False)])
def test_corners_in_the_place_of_sizes_are_said(tmp_path: Path, of: int, said: bool) -> None:
    write(tmp_path, "train", lambda d: boxes(d, 30, 20, 39, 29, of=of))
    remarks = load_data(f"coco:{tmp_path}").remarks
    assert any(f"cut off {of} boxes that reach beyond their image" in line for line in remarks) == said


@pytest.mark.parametrize("size", [(40, 30), (30, 40), None])
def test_turned_images_are_as_annotated(tmp_path: Path, size: tuple[int, int] | None) -> None:
    def sized(document: dict[str, Any]) -> None:
        for row in document["images"]:
            row.update(zip(("width", "height"), size or (None, None), strict=True))

    write(tmp_path, "train", sized)
    exif = Image.Exif()
    exif[274] = 6
    for number in range(COUNT):
        Image.new("RGB", (40, 30)).save(tmp_path / f"train/{number}.png", exif=exif)
    ((image,), _), _ = next(iter(load_data(f"coco:{tmp_path}").train.batches(1)))
    assert tuple(image.shape) == ((3, 30, 40) if size == (40, 30) else (3, 40, 30))
