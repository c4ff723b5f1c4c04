"""Search while the trainer of Ultralytics trains a detector, by its public callbacks alone.

Ultralytics is licensed under the AGPL-3.0 (or a licence that its owners sell), so that it is neither a dependency nor
an extra of this program: look whether its licence suits you, and install it yourself.

    pip install ultralytics
    python examples/ultralytics_callbacks.py --epochs 20      # synthetic squares and discs, no download

Masks are put in when the training starts, get the gradient of the cost before every step of the optimizer, and move
after the batch in which it stepped. What is decided is applied to the averaged weights, which Ultralytics evaluates.
The small network is stored as Ultralytics stores its own, so that ``YOLO("small.pt")`` validates and exports it.
"""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from ultralytics import YOLO

import compressor

SIZE = 64


def pictures(folder: Path, counts: dict[str, int]) -> Path:
    """A data set in Ultralytics' own layout: one square or disc in each picture. Returns its description."""
    numbers = np.random.default_rng(0)
    for split, count in counts.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            shape, side = int(numbers.integers(2)), int(numbers.integers(16, 32))
            x, y = (int(numbers.integers(SIZE - side)) for _ in range(2))
            picture = Image.fromarray(numbers.integers(0, 80, (SIZE, SIZE, 3), dtype=np.uint8))
            draw, box = ImageDraw.Draw(picture), (x, y, x + side, y + side)
            (draw.ellipse if shape else draw.rectangle)(box, fill=(220, 200, 60))
            picture.save(folder / "images" / split / f"{i}.png")
            centre = [(x + side / 2) / SIZE, (y + side / 2) / SIZE, side / SIZE, side / SIZE]
            text = f"{shape} {' '.join(f'{value:.5f}' for value in centre)}\n"
            (folder / "labels" / split / f"{i}.txt").write_text(text, encoding="utf-8")
    described = folder / "shapes.yaml"
    names = "names:\n  0: square\n  1: disc\n"
    described.write_text(f"path: {folder.resolve()}\ntrain: images/train\nval: images/val\n{names}", encoding="utf-8")
    return described


class Compression:
    """The callbacks."""

    session: Any = None
    small: torch.nn.Module
    _stepped = False

    def __init__(self, budgets: dict[str, Any], **arguments: Any) -> None:
        self.budgets, self.arguments = budgets, arguments

    def add_to(self, yolo: YOLO) -> None:
        for event in ("on_train_start", "on_train_batch_end", "on_train_end"):
            yolo.add_callback(event, getattr(self, event))

    def on_train_start(self, trainer: Any) -> None:
        # Gradients are accumulated to a nominal batch; while the training warms up, over fewer batches.
        batches = len(trainer.train_loader) * trainer.epochs
        steps = math.ceil(batches / trainer.accumulate)
        example = torch.zeros(1, 3, trainer.args.imgsz, trainer.args.imgsz, device=trainer.device)
        self.session = compressor.prepare(trainer.model, example, self.budgets, total_steps=steps, **self.arguments)
        trainer.optimizer.register_step_pre_hook(lambda *_: self._before_step(trainer))

    def _before_step(self, trainer: Any) -> None:
        cost = self.session.cost_loss()
        if cost.requires_grad:
            (cost * trainer.scaler.get_scale()).backward()
        self._stepped = True

    def on_train_batch_end(self, trainer: Any) -> None:
        if self._stepped:
            self._stepped = False
            self.session.step()

    def on_train_end(self, trainer: Any) -> None:
        self.session.finish()
        self.small = self.session.architecture.apply_(copy.deepcopy(trainer.ema.ema))


def main(epochs: int, out: str) -> None:
    folder = Path(out)
    data = pictures(folder / "data", {"train": 64, "val": 16})
    yolo = YOLO("yolov8n.yaml")
    compression = Compression({"flops": "50%"})
    compression.add_to(yolo)
    yolo.train(
        data=str(data), epochs=epochs, imgsz=SIZE, batch=8, nbs=8, device="cpu", workers=0, project=str(folder),
        name="training", exist_ok=True, plots=False, verbose=False, seed=0,
    )  # fmt: skip
    torch.save({"model": compression.small, "train_args": dict(yolo.ckpt["train_args"])}, folder / "small.pt")
    small = YOLO(folder / "small.pt")
    found = small.val(data=str(data), imgsz=SIZE, device="cpu", workers=0, plots=False, verbose=False)
    before, after = (sum(p.numel() for p in net.model.parameters()) for net in (yolo, small))
    print(f"mAP50 {found.box.map50:.3f}, {after} of {before} parameters, error {compression.session.check.error:.0e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="detector", help="folder for data and checkpoints")
    main(**vars(parser.parse_args()))
