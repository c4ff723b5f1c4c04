"""Folders of images and masks: what is read, varied together, and refused."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.data import load_data
from compressor.data.decoding import Loading
from compressor.data.task import IGNORED
from compressor.errors import DataError, UsageError

RNG = np.random.default_rng(0)
PALETTE = [0, 0, 0, 250, 10, 10, 10, 250, 10] + 759 * [7]


def write(folder: Path, name: str, mask: np.ndarray, mode: str = "L") -> None:
    """An image that shows its mask (80 times the class in red), and the mask."""
    for sub in ("images", "masks"):
        (folder / sub / name).parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((*mask.shape, 3), np.uint8)
    image[..., 0] = np.where(mask == 255, 0, mask) * 80
    Image.fromarray(image).save(folder / "images" / f"{name}.png")
    if mode == "P":
        made = Image.fromarray(mask.astype(np.uint8), "P")
        made.putpalette(PALETTE)
    elif mode == "1":
        made = Image.fromarray(mask.astype(bool))
    elif mode == "I;16":
        made = Image.fromarray(mask.astype(np.uint16))
    else:
        made = Image.fromarray(mask.astype(np.uint8))
    assert made.mode == mode
    made.save(folder / "masks" / f"{name}.png")


def blocks(size: tuple[int, int] = (24, 32), classes: int = 3) -> np.ndarray:
    coarse = RNG.integers(0, classes, (size[0] // 4, size[1] // 4))
    return coarse.repeat(4, 0).repeat(4, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 10), ("val", 3), ("test", 2)):
        for number in range(count):
            write(tmp_path / part, f"{number:02d}", blocks())
    return tmp_path


def test_what_is_read(folder: Path) -> None:
    data = load_data(f"segmentation:{folder}")
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test), data.num_classes, data.outputs) == (10, 3, 2, 3, 3)
    assert data.example_inputs.shape == (1, 3, 24, 32)
    assert (data.task.kind, data.task.dense) == ("segmentation", True)
    images, masks = next(iter(data.val.batches(3)))
    assert (images.dtype, images.shape, masks.dtype, masks.shape) == (
        torch.float32, (3, 3, 24, 32), torch.int64, (3, 24, 32),
    )  # fmt: skip
    red = (images[:, 0] * 0.229 + 0.485) * 255
    assert torch.equal((red / 80).round().long(), masks)


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16"])
def test_masks_of_all_modes_and_pixels_that_do_not_count(tmp_path: Path, mode: str) -> None:
    mask = blocks(classes=2)
    if mode != "1":
        mask[:4] = 255
    for number in range(4):
        write(tmp_path, f"deeper/{number}", mask, mode)
    data = load_data(f"segmentation:{tmp_path}")
    assert (data.num_classes, len(data.train), len(data.val)) == (2, 3, 1)
    found = next(iter(data.val.batches(1)))[1][0]
    assert torch.equal(found, torch.from_numpy(np.where(mask == 255, IGNORED, mask)))


def test_images_and_masks_are_varied_alike_whoever_reads(folder: Path) -> None:
    passes = []
    for workers in (0, 2):
        train = load_data(f"segmentation:{folder}", loading=Loading(workers)).train
        passes.append(list(train.batches(4, shuffle_seed=5, augment=True)))
    assert [len(masks) for _, masks in passes[0]] == [4, 4, 2]
    for (one, here), (two, there) in zip(*passes, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(here, there)
        red = (one[:, 0] * 0.229 + 0.485) * 255 / 80
        sharp = (red - red.round()).abs() < 0.02  # away from edges, where images are mixtures
        assert sharp.float().mean() > 0.3
        assert (red.round().long() == here)[sharp].float().mean() > 0.97
    plain, varied = (
        torch.cat([m for _, m in train.batches(10, shuffle_seed=5, augment=augment)]) for augment in (False, True)
    )
    assert not torch.equal(plain, varied)


def test_sizes_and_classes(folder: Path) -> None:
    assert load_data(f"segmentation:{folder},size=16x20").example_inputs.shape == (1, 3, 16, 20)
    assert load_data(f"segmentation:{folder}", image_size=12).example_inputs.shape == (1, 3, 12, 12)
    assert load_data(f"segmentation:{folder},classes=7").outputs == 7
    write(folder / "train", "other", blocks((40, 40)))
    assert load_data(f"segmentation:{folder}").example_inputs.shape == (1, 3, 224, 224)
    (folder / "classes.txt").write_text("sky\nroad\n\ncar\ntree\n")
    assert load_data(f"segmentation:{folder},size=8").outputs == 4
    for wrong in ("classes=1", "classes=x", "size=0", "size=3x4x5", "colour=red"):
        with pytest.raises(UsageError, match=wrong.partition("=")[0]):
            load_data(f"segmentation:{folder},{wrong}")


def test_what_is_refused(folder: Path) -> None:
    train = folder / "train"
    with pytest.raises(DataError, match="does not exist"):
        load_data("segmentation:/no/such/folder")
    write(train, "high", np.full((24, 32), 9))
    data = load_data(f"segmentation:{folder},classes=3")
    for workers in (0, 1):
        data = load_data(f"segmentation:{folder},classes=3", loading=Loading(workers))
        with pytest.raises(DataError, match=r"high\.png' has the class 9; expected 0 to 2"):
            list(data.train.batches(4))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(train / "masks" / "high.png")
    with pytest.raises(DataError, match="9 x 9 pixels, its image 32 x 24"):
        list(load_data(f"segmentation:{folder}").train.batches(4))
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(train / "masks" / "high.png")
    with pytest.raises(DataError, match=r"high\.png' is an image of mode RGB"):
        load_data(f"segmentation:{folder}")
    (train / "masks" / "high.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"high\.png"):
        load_data(f"segmentation:{folder}")
    (train / "masks" / "high.png").unlink()
    with pytest.raises(DataError, match=r"1 image has no mask, the first '.*high\.png'; expected '.*masks/high\.png'"):
        load_data(f"segmentation:{folder}")
    (folder / "classes.txt").write_text("\n \n")
    (train / "images" / "high.png").unlink()
    with pytest.raises(DataError, match="names no class"):
        load_data(f"segmentation:{folder}")
    (folder / "val" / "masks").rename(folder / "val" / "labels")
    with pytest.raises(DataError, match="has no masks/"):
        load_data(f"segmentation:{folder}")


def test_early_ends_leave_nothing_running(folder: Path) -> None:
    before = set(threading.enumerate())
    for workers in (0, 1):
        source = load_data(f"segmentation:{folder}", loading=Loading(workers)).train.batches(2, shuffle_seed=0)
        next(source)
        source.close()  # type: ignore[attr-defined]
    assert not [thread.name for thread in set(threading.enumerate()) - before if "ThreadPool" in thread.name]
    assert not multiprocessing.active_children()
    with pytest.raises(UsageError, match="workers"):
        Loading(-1)
