"""Which folders and tables are those of a part, in every source of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.data import Data, load_data
from compressor.data.folders import parts_in
from compressor.errors import DataError


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 10, 10)).save(path)


def classes(folder: Path) -> None:
    for name in ("a", "b"):
        for number in range(2):
            image(folder / name / f"{number}.png")


def masks(folder: Path) -> None:
    image(folder / "images/0.png")
    (folder / "masks").mkdir()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "masks/0.png")


def table(folder: Path) -> None:
    image(folder.parent / "images/0.png")
    folder.with_suffix(".csv").write_text("image,a,b\n0.png,0,1\n0.png,1,0\n")


SOURCES = {"imagefolder": classes, "segmentation": masks, "multilabel": table}
NAMES = [
    ("train", "val", "test"),
    ("train", "valid", "test"),
    ("Train", "Validation", "Test"),
    ("training", "VAL", "testing"),
]


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
@pytest.mark.parametrize("source", SOURCES)
def test_parts_by_their_usual_names(tmp_path: Path, source: str, names: tuple[str, str, str]) -> None:
    for name in names:
        SOURCES[source](tmp_path / name)
    data: Data = load_data(f"{source}:{tmp_path}", image_size=8)
    assert data.test is not None
    each = 4 if source == "imagefolder" else 1 if source == "segmentation" else 2
    assert [len(split) for split in (data.train, data.val, data.test)] == [each] * 3
    assert data.num_classes == 2


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("test",), "has test.* and no train"),
        (("images_a", "valid"), "has valid.* and no train"),
        (("train", "val", "valid"), "has val.* and valid.*, both for val"),
    ],
)
def test_parts_that_cannot_be_told(tmp_path: Path, source: str, names: tuple[str, ...], said: str) -> None:
    for name in names:
        SOURCES[source](tmp_path / name)
    with pytest.raises(DataError, match=said):
        load_data(f"{source}:{tmp_path}")


def test_other_folders_belong_to_no_part(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "train.txt").touch()
    (tmp_path / "val.csv").touch()
    assert parts_in(tmp_path) == {}
    with pytest.raises(DataError, match=r"no train\.csv"):
        parts_in(tmp_path, ".csv")


def test_class_folders(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    image(tmp_path / "train/a/.ipynb_checkpoints/0.png")
    (tmp_path / "train/.cache").mkdir()
    data = load_data(f"imagefolder:{tmp_path}", image_size=8)
    assert (data.class_names, len(data.train) + len(data.val)) == (("a", "b"), 4)
    (tmp_path / "train/c").mkdir()
    with pytest.raises(DataError, match=r"train/c' is a class without images"):
        load_data(f"imagefolder:{tmp_path}")
