"""Segmentation and detection at half of the multiply-adds: FiGS, one-shot and uniform widths, trained for as long.

    python -m benchmarks.accuracy.tasks FOLDER [--tasks segmentation,detection] [--seeds 0,1,2]
    python -m benchmarks.accuracy.tasks FOLDER --table

FOLDER gets the data, shapes that ``examples/make_shapes.py`` draws, and the trained originals, one for each task and
seed. Each method makes its network from the original; then all have had the same number of epochs in all: what
``figs`` spends on its search, the others spend on fine-tuning. Scores are mean intersection over union and COCO's mean
average precision, on images that nothing was trained on or chosen by.

Every run is one line of ``tasks.jsonl`` beside this file; what is there is not run again. Seconds are processor times.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from benchmarks.accuracy.accuracy_cifar import uniform
from benchmarks.harness import append, read
from compressor.costs import build
from compressor.data import Data, load_data
from compressor.graph import capture
from compressor.search import METHODS as SEARCHES
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint
from compressor.train import TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from compressor.trim import trim_verified

ROWS = Path(__file__).with_suffix(".jsonl")
EXAMPLES = Path(__file__).parents[2] / "examples"
METHODS = ("figs", "oneshot", "uniform")
SHARE, BATCH, SIDE = 0.5, 16, 64


def layer(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class UNet(nn.Module):
    """Images (B, 3, H, W) to logits (B, classes, H, W)."""

    def __init__(self, classes: int, width: int = 12) -> None:
        super().__init__()
        sizes = [width * factor for factor in (1, 2, 4, 4)]
        self.down = nn.ModuleList(
            nn.Sequential(layer(a, b), layer(b, b)) for a, b in zip([3, *sizes], sizes, strict=False)
        )
        self.up = nn.ModuleList(layer(a + b, b) for a, b in zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for i, stage in enumerate(self.down):
            x = stage(x if not i else nn.functional.max_pool2d(x, 2))
            seen.append(x)
        for stage, before in zip(self.up, seen[-2::-1], strict=True):
            x = stage(torch.cat([before, nn.functional.interpolate(x, size=before.shape[2:])], 1))
        out: Tensor = self.head(x)
        return out


class Pyramid(nn.Module):
    """Feature maps at an eighth and a sixteenth of the image, with residual blocks."""

    out_channels = (64, 96)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, 16, 2), layer(16, 32, 2), layer(32, 64, 2))
        self.blocks = nn.ModuleList(nn.Sequential(layer(64, 64), layer(64, 64)) for _ in range(3))
        self.further = nn.Sequential(layer(64, 96, 2), layer(96, 96))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return {"0": x, "1": self.further(x)}


def network(task: str, classes: int) -> nn.Module:
    """A fresh original."""
    if task == "segmentation":
        return UNet(classes)
    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.25, 0.45, 0.6])
    return SSD(Pyramid(), boxes, (SIDE, SIDE), classes, image_mean=[0.4] * 3, image_std=[0.25] * 3, topk_candidates=100)


RECIPES: dict[str, dict[str, Any]] = {
    "segmentation": {"lr": 0.1, "batch_size": BATCH, "warmup_epochs": 1},
    "detection": {"lr": 2e-3, "batch_size": BATCH, "optimizer": "adamw", "warmup_epochs": 1, "grad_clip": 5.0},
}


def load(task: str, folder: Path, images: int) -> Data:
    """Shapes of 64 pixels and more, with their masks or their boxes."""
    place = folder / f"shapes{images}"
    if not (place / "classes.txt").exists():  # which is written last
        sys.path.append(str(EXAMPLES))
        from make_shapes import make  # type: ignore[import-not-found]

        make(place, train=images, val=images // 4, test=images // 2, side=SIDE)
    return load_data(f"segmentation:{place},size={SIDE}" if task == "segmentation" else f"coco:{place}")


def fit(model: nn.Module, data: Data, task: str, epochs: int, seed: int, share: float = 1.0) -> None:
    """Train in place; ``share`` of the rate of the original's training."""
    told = {**RECIPES[task], "lr": RECIPES[task]["lr"] * share}
    Trainer(model, data, TrainConfig(epochs=epochs, seed=seed, **told)).run()


def original(task: str, data: Data, folder: Path, seed: int, args: argparse.Namespace) -> nn.Module:
    """A trained one, from the folder if it is there."""
    assert data.num_classes is not None
    torch.manual_seed(seed)
    model = network(task, data.num_classes)
    file = folder / f"{task}-{args.images}-{args.train_epochs}-{seed}.safetensors"
    if not file.exists():
        fit(model, data, task, args.train_epochs, seed)
        part = file.with_suffix(".part")
        save_model(model, str(part))
        part.replace(file)
    load_model(model, str(file))
    return model


def run(task: str, method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One network, from the original to its score."""
    data = load(task, args.folder, args.images)
    model = original(task, data, args.folder, seed, args)
    assert data.test is not None
    before = evaluate(model, data.test, task=data.task)
    started = time.process_time()
    searched = copy.deepcopy(model)
    graph = capture(searched, data.example_inputs)
    flops = build("flops", graph)
    constraint = Constraint(flops, SHARE * flops.original)
    gates, left = None, args.epochs
    if method == "uniform":
        units = uniform(searched, graph, constraint)
    else:
        trains = method == "figs"
        options: dict[str, Any] = {"epochs": args.epochs // 2, "batch_size": BATCH} if trains else {}
        context = SearchContext(searched, graph, [constraint], data=data, seed=seed, options=options)
        decision = SEARCHES.get(method)().run(context)
        units, gates = decision.units, decision.gates
        left -= options.get("epochs", 0)
    result = trim_verified(searched, graph, units, data.example_inputs, gates=gates)
    recalibrate_batchnorm(result.model, data.train, seed=seed)
    fit(result.model, data, task, left, seed, share=0.5)
    after = evaluate(result.model, data.test, task=data.task)
    reached = build("flops", capture(result.model, data.example_inputs)).original
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "images": args.images,
        "train_epochs": args.train_epochs,
        "epochs": args.epochs,
        "metric": after.metric.name,
        "before": before.score,
        "score": after.score,
        "share": round(reached / flops.original, 4),
        "seconds": round(time.process_time() - started, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: the mean over seeds, and how far the seeds are apart."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["task"], row["images"], row["train_epochs"], row["epochs"], row["method"]].append(row)
    lines = ["| task | images | epochs | method | seeds | original | at half | least to most | seconds |"]
    lines.append("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for (task, images, trained, epochs, method), group in sorted(found.items(), key=str):
        scores = [row["score"] or 0.0 for row in group]
        before, took = (statistics.mean(row[key] or 0.0 for row in group) for key in ("before", "seconds"))
        lines.append(
            f"| {task} | {images} | {trained} + {epochs} | {method} | {len(group)} | {before:.3f} | "
            f"{statistics.mean(scores):.3f} | {min(scores):.3f} to {max(scores):.3f} | {took:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", default="segmentation,detection")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--train-epochs", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=20, help="Of search and fine-tuning together.")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(table(read(args.rows)))
        return
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    keys = ("task", "method", "seed", "images", "train_epochs", "epochs")
    done = {tuple(row[key] for key in keys) for row in read(args.rows)}
    for task in args.tasks.split(","):
        for seed in map(int, args.seeds.split(",")):
            for method in args.methods.split(","):
                if (task, method, seed, args.images, args.train_epochs, args.epochs) not in done:
                    append(args.rows, row := run(task, method, seed, args))
                    print(row, flush=True)


if __name__ == "__main__":
    main()
