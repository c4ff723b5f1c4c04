"""Compress an audio network: 1D convolutions that tell tones apart, under budgets of parameters and multiply-adds.

    python examples/audio.py --epochs 4

The sounds are made here; any loaders of (waveforms, class) do.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor, nn

import compressor

CLASSES, SAMPLES = 6, 1024


class Listener(nn.Module):
    """Waveforms (B, 1, 1024) to the logits of six tones; residual blocks of separable convolutions."""

    def __init__(self, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, width, 32, stride=4, padding=14)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width),
                nn.Conv1d(width, width, 9, padding=4, groups=width),
                nn.Conv1d(width, 2 * width, 1),
                nn.GELU(),
                nn.Conv1d(2 * width, width, 1),
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)  # may go as a whole, too
        out: Tensor = self.head(x.mean(-1))
        return out


def tones(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of noisy sine waves with the number of their pitch."""
    generator = torch.Generator().manual_seed(seed)
    pitch = torch.randint(0, CLASSES, (count,), generator=generator)
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    time = torch.arange(SAMPLES) / SAMPLES
    waves = torch.sin(2 * math.pi * (20 + 12 * pitch[:, None]) * time + phase)
    waves = waves + torch.randn(waves.shape, generator=generator)
    return list(zip(waves[:, None].split(32), pitch.split(32), strict=True))


def main(epochs: int) -> None:
    torch.manual_seed(0)
    train, val = tones(512, seed=0), tones(128, seed=1)
    model = Listener()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for waves, pitch in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(waves), pitch).backward()
            optimizer.step()

    result = compressor.compress(
        model,
        train[0][0][:1],
        {"flops": "40%", "params": "60%"},
        data=(train, val),
        training=compressor.Training(search_epochs=epochs, finetune_epochs=epochs),
        scope=compressor.Scope(keep={"stem": 16}),  # the ears stay sharp
    )
    for budget in result.report.budgets:
        print(f"{budget.cost}: {budget.original:.4g} -> {budget.reached:.4g} {budget.unit}")
    scores = result.report.accuracy
    assert scores is not None
    print(f"tones that are told: {scores.before:.1%} before, {scores.after_finetune:.1%} after")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    main(parser.parse_args().epochs)
