"""Folders of COCO's format: where things are found, what is skipped and said, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from compressor.data import Data, Subsampled, load_data
from compressor.data.batches import first_of, sample_count, samples_of
from compressor.data.decoding import Loading
from compressor.errors import DataError, MissingDependencyError

pytest.importorskip("pycocotools")

SIZES = ((40, 30), (32, 48), (64, 64))
BOXES = {  # by image
    1: [(3, [4, 5, 10, 8], 0), (7, [20, 10, 10, 10], 0)],
    2: [(7, [0, 0, 32, 48], 1), (3, [1.5, 2.5, 6, 6], 0)],
    3: [],
}


def document(count: int = 3) -> dict[str, Any]:
    images = [
        {"id": n, "file_name": f"{n}.png", "width": SIZES[n - 1][0], "height": SIZES[n - 1][1]}
        for n in range(1, count + 1)
    ]
    rows = [
        {"image_id": n, "category_id": c, "bbox": b, "area": b[2] * b[3] / 2, "iscrowd": crowd}
        for n in range(1, count + 1)
        for c, b, crowd in BOXES[n]
    ]
    return {
        "images": images,
        "annotations": [{"id": i, **row} for i, row in enumerate(rows, 1)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def write(annotations: Path, images: Path, content: Any | None = None) -> None:
    annotations.parent.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(document() if content is None else content))
    for number, size in enumerate(SIZES, 1):
        Image.new("RGB", size, (80 * number, 0, 0)).save(images / f"{number}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        write(tmp_path / f"annotations/instances_{part}2017.json", tmp_path / f"{part}2017")
    return tmp_path


def everything(data: Data) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    (images, given), targets = next(iter(data.val.batches(10)))
    assert given is targets
    return images, targets


def test_what_is_read(folder: Path) -> None:
    data = load_data(f"coco:{folder}")
    assert (data.task.kind, data.num_classes, data.outputs, data.remarks) == ("detection", 3, 3, ())
    assert data.input_shape == (3, 30, 40)
    assert data.describe()["task"] == "detection"
    images, targets = everything(data)
    assert [tuple(image.shape) for image in images] == [(3, 30, 40), (3, 48, 32), (3, 64, 64)]
    assert float(images[1][0].min()) == float(images[1].max()) == pytest.approx(160 / 255)
    assert targets[0]["boxes"].tolist() == [[4, 5, 14, 13], [20, 10, 30, 20]]
    assert targets[0]["labels"].tolist() == [1, 2], "labels follow the order of ids, from 1"
    assert targets[0]["area"].tolist() == [40, 50]
    assert targets[1]["boxes"].tolist() == [[1.5, 2.5, 7.5, 8.5]], "a crowd is not learned"
    assert targets[1]["crowd_boxes"].tolist() == [[0, 0, 32, 48]]
    assert targets[2]["boxes"].shape == (0, 4)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_train.json", "train"),
        ("annotations/instances_train.json", "images"),
        ("annotations/train.json", "train/images"),
        ("train.json", "."),
        ("train/annotations.json", "train"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_where_things_lie(tmp_path: Path, annotations: str, images: str) -> None:
    write(tmp_path / annotations, tmp_path / images)
    data = load_data(f"coco:{tmp_path}")
    assert (len(data.train), len(data.val), data.test) == (2, 1, None)


def test_variation_moves_boxes_with_the_image_whoever_reads(tmp_path: Path) -> None:
    """A white box on black is found again wherever it went."""
    rows = [{"id": n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in range(16)]
    boxes = [{"id": n + 1, "image_id": n, "category_id": 1, "bbox": [10 + n % 20, 8, 14, 20]} for n in range(16)]
    (tmp_path / "train.json").write_text(
        json.dumps({"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "box"}]})
    )
    for n in range(16):
        image = Image.new("L", (60, 40))
        image.paste(255, (10 + n % 20, 8, 24 + n % 20, 28))
        image.save(tmp_path / f"{n}.png")
    passes = []
    for workers in (0, 2):
        train = load_data(f"coco:{tmp_path}", loading=Loading(workers)).train
        passes.append([batch for batch, _ in train.batches(6, shuffle_seed=3, augment=True)])
    seen: set[tuple[int, ...]] = set()
    for (one, here), (two, there) in zip(*passes, strict=True):
        for image, other, target, same in zip(one, two, here, there, strict=True):
            assert torch.equal(image, other)
            assert torch.equal(target["boxes"], same["boxes"])
            seen.add(tuple(image.shape))
            rows_, columns = torch.nonzero(image[0] == 1, as_tuple=True)
            if len(target["boxes"]):
                found = [columns.min(), rows_.min(), columns.max() + 1, rows_.max() + 1]
                assert target["boxes"][0].tolist() == [float(value) for value in found]
            else:
                assert len(rows_) < 14 * 20 / 2 + 14, "its centre was cut off"
    assert len(seen) > 5


def test_what_cannot_be_used_is_skipped_and_said(folder: Path) -> None:
    content = document()
    content["images"].append({"id": 9, "file_name": "gone.png", "width": 4, "height": 4})
    odd = [
        (1, 99, [1, 1, 5, 5]),
        (1, None, [1, 1, 5, 5]),
        (1, 3, [1, 1, 0, 5]),
        (1, 3, [100, 100, 5, 5]),
        (1, 3, [1, 1, 5]),
        (1, 3, [1, 1, 5, "wide"]),
        (1, 3, None),
        (9, 3, [1, 1, 2, 2]),
        (77, 3, [1, 1, 2, 2]),
        (1, 3, [-5, -5, 10, 10]),
        ([1], 3, [1, 1, 2, 2]),
        (1, [3], [1, 1, 2, 2]),
        (1.0, 3.0, [-5, -5, 10, 10]),
        (1, 3, [4, 5, 10, 8]),
    ]
    content["annotations"] += [
        {"id": 100 + i, "image_id": n, "category_id": c, "bbox": b} for i, (n, c, b) in enumerate(odd)
    ]
    content["annotations"] += [
        {"id": 200 + i, "image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9], "iscrowd": crowd}
        for i, crowd in enumerate(("0", 2, 0.5, []))
    ]
    content["images"] += [
        {"id": 10 + i, "file_name": name, "width": 4, "height": 4} for i, name in enumerate(("a\0b", "a" * 400, "."))
    ]
    write(folder / "annotations/instances_val2017.json", folder / "val2017", content)
    data = load_data(f"coco:{folder}")
    assert len(data.val) == 3
    text = "\n".join(data.remarks)
    for said in (
        "skipped 4 images whose file is missing (the first: ",
        "skipped 3 annotations of a category that is not listed (the first: id 100, category_id 99)",
        "skipped 2 boxes that are empty or outside of their image (the first: id 102)",
        "skipped 3 annotations without a box of four numbers (the first: id 104)",
        "skipped 2 annotations of images that it does not list (the first: image_id 77)",
        "skipped 2 boxes that are there already (the first: id 112)",
        "skipped 4 annotations whose iscrowd is neither 0 nor 1 (the first: id 200, '0')",
    ):
        assert said in text
    assert len(data.remarks) == 7
    assert everything(data)[1][0]["boxes"].tolist()[-1] == [0, 0, 5, 5], "what sticks out is cut off"


def test_images_that_are_learned_and_scored_are_said(tmp_path: Path) -> None:
    write(tmp_path / "train.json", tmp_path / "images")
    write(tmp_path / "val.json", tmp_path / "images")
    (said,) = load_data(f"coco:{tmp_path}").remarks
    assert said.startswith("3 images of val are in train, too (the first: ")


def change(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, key: value}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda _: [1, 2], "holds a list"),
        (lambda content: {k: v for k, v in content.items() if k != "annotations"}, "lacks 'annotations'"),
        (change("images", {"1": "a"}), "has no list of objects as 'images'"),
        (change("images", []), "has no images"),
        (change("images", [{"id": 1}]), "without a whole id and a file_name"),
        (change("images", [{"id": 1, "file_name": "1.png"}] * 2), "two images with the id 1"),
        (change("images", [{"id": 1, "file_name": "../2.png", "width": 1, "height": 1}]), "which is not in"),
        (change("images", [{"id": 1, "file_name": "1.png", "width": -4, "height": 1}]), "-4 x 1 pixels"),
        (change("images", [{"id": 1, "file_name": "x.png"}]), "None of the 1 images"),
        (change("categories", []), "needs categories"),
        (change("categories", [{"id": 1}, {"id": 1}]), "a whole number of its own"),
        (change("categories", [{"id": "a"}]), "a whole number of its own"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, changed: Callable[[Any], Any], said: str) -> None:
    write(tmp_path / "train.json", tmp_path / "images", changed(document()))
    with pytest.raises(DataError, match=said):
        load_data(f"coco:{tmp_path}")


def test_damaged_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "annotations/instances_train2017.json"
    for content in (
        '{"images": [',
        '{"images": NaN}',
        "[" * 2000 + "]" * 2000,
        '{"images": 1, "images": 2}',
        "\ufeff{}",
    ):
        file.write_text(content)
        with pytest.raises(DataError, match="damaged"):
            load_data(f"coco:{folder}")
    file.unlink()
    with pytest.raises(DataError, match="no annotations of train"):
        load_data(f"coco:{folder}")
    with pytest.raises(DataError, match="does not exist"):
        load_data("coco:/no/such/folder")
    for name in ("a", "b"):
        write(folder / f"annotations/instances_train{name}.json", folder / "train2017")
    with pytest.raises(DataError, match=r"2 files for train: instances_traina\.json, instances_trainb\.json"):
        load_data(f"coco:{folder}")
    monkeypatch.setattr("compressor.data.sources.coco.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"compressor\[detection\]"):
        load_data(f"coco:{folder}")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_images_of_all_modes_and_of_other_sizes(folder: Path, mode: str) -> None:
    suffix = "tif" if mode in ("CMYK", "LA") else "png"
    content = document()
    content["images"][0]["file_name"] = f"1.{suffix}"
    if mode != "LA":
        Image.new(mode, (40, 30)).save(folder / f"val2017/1.{suffix}")
    else:
        Image.new(mode, (40, 30)).save(folder / f"val2017/1.{suffix}", format="PNG")
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(content))
    assert everything(load_data(f"coco:{folder}"))[0][0].shape == (3, 30, 40)
    Image.new("RGB", (41, 30)).save(folder / "val2017/2.png")
    for workers in (0, 1):
        data = load_data(f"coco:{folder}", loading=Loading(workers))
        with pytest.raises(DataError, match="41 x 30 pixels, the annotations say 32 x 48"):
            list(data.val.batches(4))


def test_samples_are_told_apart_from_rows(folder: Path) -> None:
    """Three images have three channels each: slices of a batch are images."""
    data = load_data(f"coco:{folder}")
    inputs, targets = next(iter(data.val.batches(3)))
    assert sample_count(inputs, targets) == 3
    images, given = samples_of(inputs, 1, 3, 3)
    assert [tuple(image.shape) for image in images] == [(3, 48, 32), (3, 64, 64)]
    assert given == samples_of(targets, 1, 3, 3) == targets[1:]
    assert torch.equal(first_of(inputs), inputs[0][0][None])
    batches = list(Subsampled(data.val, 0.67).batches(3))
    assert [len(found) for _, found in batches] == [2]


def test_loaders_of_the_usual_form() -> None:
    from compressor.data import from_loaders

    image = torch.rand(3, 8, 9)
    target = {"boxes": torch.tensor([[1.0, 1, 4, 4]]), "labels": torch.tensor([1])}
    data = from_loaders([((image, image), (target, target))], [((image,), (target,))])
    assert data.task.kind == "detection"
    assert data.input_shape == (3, 8, 9)
    inputs, targets = next(iter(data.train.batches(2)))
    assert len(inputs[0]) == len(inputs[1]) == len(targets) == 2
    with pytest.raises(DataError, match="do not fit the task 'regression'"):
        from_loaders([((image,), (target,))], [((image,), (target,))], task="regression")
    with pytest.raises(DataError, match="do not fit the task 'detection'"):
        from_loaders([(torch.rand(2, 3), torch.zeros(2))], [(torch.rand(2, 3), torch.zeros(2))], task="detection")
