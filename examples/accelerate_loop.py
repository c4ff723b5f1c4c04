"""Search in a loop of one's own that Accelerate runs, with accumulated gradients and checkpoints.

    pip install 'compressor[accelerate]'
    python examples/accelerate_loop.py --epochs 6       # handwritten digits, no download
    accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py

``accelerator.save_state`` and ``load_state`` have the masks, too: killed and started again with the same ``--out``, it
ends as it would have.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor.data import load_data
from compressor.integrations.accelerate import prepare

PARTS = 2


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def main(epochs: int, out: str) -> None:
    torch.manual_seed(0)
    data = load_data("digits")
    train, val = (next(split.batches(len(split))) for split in (data.train, data.val))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=PARTS)
    model = network()
    before = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(TensorDataset(*train), batch_size=32, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    steps = epochs * math.ceil(len(loader) / PARTS)
    masks = prepare(accelerator, model, data.example_inputs, {"flops": "50%"}, total_steps=steps)
    done = sorted(Path(out).glob("epoch*"), key=lambda path: int(path.name[5:]))
    if done:
        accelerator.load_state(str(done[-1]))
    for epoch in range(len(done), epochs):
        model.train()
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(inputs), targets) + masks.cost_loss()
                accelerator.backward(loss)
                optimizer.step()
                masks.step()
                optimizer.zero_grad()
        accelerator.print(f"epoch {epoch + 1}: expected multiply-adds {masks.costs()['flops']:.0%} of the original's")
        accelerator.save_state(f"{out}/epoch{epoch}")

    small = masks.finish().eval()
    right = (small(val[0]).argmax(1) == val[1]).float().mean()
    after = sum(p.numel() for p in small.parameters())
    accelerator.print(f"{right:.1%} right, {after} of {before} parameters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", default="accelerated", help="folder for checkpoints")
    main(**vars(parser.parse_args()))
