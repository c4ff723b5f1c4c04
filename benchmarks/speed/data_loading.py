"""Samples a second that data sources give, beside a plain PyTorch loop that reads the same with the same variation.

    python -m benchmarks.speed.data_loading [--images 600] [--passes 5] [--workers 0,2] [--write benchmarks/speed/data_loading.md]

The plain loop is what one would write: a ``Dataset`` that opens a file with PIL, cuts and mirrors, a ``DataLoader``
that shuffles, and the mean and spread taken off each batch; for arrays in memory, a ``TensorDataset`` with the crop and
the mirror image by torchvision, sample by sample, and, as the strictest rival, the same with one gather for the whole
batch. The two go through the data in turn, so that other load on the machine falls on both; a ratio is that of two
neighbouring passes.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from compressor.data import CropFlip, Split, from_tensors, load_data
from compressor.data.decoding import Loading
from compressor.data.images import random_box
from compressor.data.memory import IMAGENET

BATCH, SIDE = 64, 96
Pass = Callable[[int], Iterable[Any]]
"""All batches of one pass, by its number."""


class Files(Dataset[tuple[Tensor, int]]):
    """Images of a folder with classes, as a plain script reads them."""

    def __init__(self, root: Path) -> None:
        names = sorted(path.name for path in root.iterdir())
        self.files = [(file, n) for n, name in enumerate(names) for file in sorted((root / name).iterdir())]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        draw = torch.rand(5).tolist()
        image = Image.open(file).convert("RGB")
        box = random_box(image.width, image.height, draw)
        resized: Any = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        return pixels.flip(2) if draw[4] < 0.5 else pixels, label


class Varied(Dataset[tuple[Tensor, Tensor]]):
    """Arrays in memory, cut and mirrored sample by sample."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.nn.functional.pad(self.images[index], (4, 4, 4, 4))
        top, left = torch.randint(9, (2,)).tolist()
        image = image[:, top : top + 32, left : left + 32]
        return (image.flip(2) if torch.rand(()) < 0.5 else image), self.labels[index]


def ours(split: Split) -> Pass:
    """A split with its own variation."""
    return lambda number: split.batches(BATCH, shuffle_seed=number, augment=True)


def plain(dataset: Dataset[Any], workers: int) -> Pass:
    """A ``DataLoader`` that shuffles, with the normalisation behind it."""

    def batches(number: int) -> Iterable[Any]:
        torch.manual_seed(number)
        for images, labels in DataLoader(dataset, BATCH, shuffle=True, num_workers=workers):
            yield IMAGENET(images), labels

    return batches


def gathered(images: Tensor, labels: Tensor) -> Pass:
    """The same variation for whole batches, in a loop without a ``DataLoader``."""
    vary, dataset = CropFlip(padding=4), TensorDataset(images, labels)

    def batches(number: int) -> Iterable[Any]:
        generator = torch.Generator().manual_seed(number)
        for chosen in torch.randperm(len(dataset), generator=generator).split(BATCH):
            yield IMAGENET(vary(images[chosen], generator)), labels[chosen]

    return batches


def seconds(batches: Iterable[Any]) -> tuple[float, int]:
    """How long a pass took, and how many samples it had."""
    started, count = time.perf_counter(), 0
    for images, _ in batches:
        count += len(images)
    return time.perf_counter() - started, count


def compared(one: Pass, other: Pass, passes: int) -> tuple[float, float, list[float]]:
    """Samples a second of each, the median, and the ratios of neighbouring passes, which change places."""
    seconds(one(0)), seconds(other(0))
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(1, passes + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            took, count = seconds((one, other)[which](number))
            rates[which].append(count / took)
    return median(rates[0]), median(rates[1]), [a / b for a, b in zip(*rates, strict=True)]


def folder_of_images(root: Path, count: int) -> Path:
    """JPEG files of 160 x 120 pixels, of two classes."""
    draw = np.random.default_rng(0)
    for number in range(count):
        place = root / "train" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = draw.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((160, 120), Image.Resampling.BILINEAR).save(place / f"{number}.jpg", quality=90)
    return root


def rows(count: int, passes: int, workers: list[int]) -> Iterable[tuple[str, float, float, list[float]]]:
    """What was compared, both rates and the ratios."""
    with tempfile.TemporaryDirectory() as temporary:
        root = folder_of_images(Path(temporary), count)
        (root / "val").symlink_to(root / "train")
        for each in workers:
            split = load_data(f"imagefolder:{root}", image_size=SIDE, loading=Loading(each)).train
            how = f"{each} workers" if each else "no workers"
            yield f"JPEG files, {how}", *compared(ours(split), plain(Files(root / "train"), each), passes)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20 * count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (len(images),), generator=generator)
    data = from_tensors((images, labels), (images[:10], labels[:10]), normalise=IMAGENET, augment=CropFlip(padding=4))
    yield (
        "arrays in memory, against a DataLoader",
        *compared(ours(data.train), plain(Varied(images, labels), 0), passes),
    )
    yield "arrays in memory, against one gather", *compared(ours(data.train), gathered(images, labels), passes)
    with tempfile.TemporaryDirectory() as temporary:
        for name, values in (("x_train", images), ("y_train", labels), ("x_val", images[:64]), ("y_val", labels[:64])):
            np.save(Path(temporary) / f"{name}.npy", values.numpy())
        mapped = load_data(f"npz:{temporary}").train
        x = np.load(Path(temporary) / "x_train.npy", mmap_mode="r")

        def rival(number: int) -> Iterable[Any]:
            generator = torch.Generator().manual_seed(number)
            for chosen in torch.randperm(len(x), generator=generator).split(BATCH):
                yield IMAGENET(torch.from_numpy(x[chosen.numpy()])), labels[chosen]

        yield "mapped arrays, against a loop over them", *compared(ours(mapped), rival, passes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Data at speed",
        "",
        f"Made by `python -m benchmarks.speed.data_loading --images {options.images} --passes {options.passes}`: samples a "
        "second of our sources and of a plain PyTorch loop with the same variation, in turn. Batches of "
        f"{BATCH}; files are JPEG of 160x120, brought to {SIDE}x{SIDE}; arrays are 32x32.",
        "",
        f"Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        "| what | ours | plain | ours of plain: median (least to most) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what, one, other, ratios in rows(options.images, options.passes, [int(n) for n in options.workers.split(",")]):
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {what} | {one:,.0f} | {other:,.0f} | {spread} |")
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
