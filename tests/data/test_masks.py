"""Masks that would be learned from wrongly are refused, or said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.data import load_data
from compressor.errors import DataError


def folder(root: Path, values: list[int], *, suffix: str = "png", count: int = 6) -> Path:
    """Images with masks, in each of which all ``values`` occur."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    kind = np.uint8 if max(values) < 256 else np.uint16
    for number in range(count):
        Image.new("RGB", (16, 16)).save(root / f"images/{number}.png")
        mask = np.resize(np.array(values, kind), (16, 16))
        Image.fromarray(mask).save(root / f"masks/{number}.{suffix}")
    return root


@pytest.mark.parametrize("option", ["", ",classes=2", ",size=8"])
@pytest.mark.parametrize("values", [[0, 255], [255]])
def test_white_on_black_is_no_mask(tmp_path: Path, values: list[int], option: str) -> None:
    root = folder(tmp_path, values)
    with pytest.raises(DataError, match="255 marks pixels that do not count; write 1 for what is to be found"):
        load_data(f"segmentation:{root}{option}")


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    root = folder(tmp_path, [0])
    with pytest.raises(DataError, match="nothing but class 0"):
        load_data(f"segmentation:{root}")
    assert load_data(f"segmentation:{root},classes=2").num_classes == 2


def test_jpeg_does_not_keep_numbers(tmp_path: Path) -> None:
    root = folder(tmp_path, [0, 1], suffix="jpg")
    for option in ("", ",classes=2,size=16"):
        with pytest.raises(DataError, match="is a JPEG, which does not keep the numbers of classes"):
            load_data(f"segmentation:{root}{option}")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 85, 170, 255], "3 of the classes 0 to 170 (0, 85, 170)"),
        ([*range(0, 200, 20)], "(0, 20, 40, 60, 80, ...)"),
        ([1], "1 of the classes 0 to 1 (1)"),
        ([0, 1, 2, 4, 255], ""),
        ([0, 2], ""),
    ],
)
def test_levels_of_grey_are_said(tmp_path: Path, values: list[int], said: str) -> None:
    remarks = load_data(f"segmentation:{folder(tmp_path, values)}").remarks
    assert said in " ".join(remarks)
    assert bool(remarks) == bool(said)


def test_more_classes_than_a_byte_has(tmp_path: Path) -> None:
    data = load_data(f"segmentation:{folder(tmp_path, [*range(0, 300, 2), 299])}")
    assert data.num_classes == 300
    _, masks = next(iter(data.train.batches(2)))
    assert int(masks.max()) == 299


def test_two_masks_of_one_image(tmp_path: Path) -> None:
    root = folder(tmp_path, [0, 1])
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(root / "masks/3.tif")
    with pytest.raises(DataError, match=r"3\.png' and '.*3\.tif' are masks of one image"):
        load_data(f"segmentation:{root}")
