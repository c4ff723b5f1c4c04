"""Compress a segmentation network: a small U-Net that finds discs and squares, at half its multiply-adds.

    python examples/segmentation.py --epochs 4

The pictures are drawn here; any loaders of (images, class per pixel) do. They say that their task is segmentation: the
loss is cross entropy over pixels, 255 marks pixels that do not count, and the measure is mean intersection over union.
Without the word the measure would be the share of pixels that are right. Folders of images and masks need no script:

    compress --model lraspp_mobilenet_v3_large --data segmentation:DIR --budget-flops 50%
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import compressor


class UNet(nn.Module):
    """Images (B, 1, 32, 32) to logits (B, 3, 32, 32): nothing, disc, square."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down1, self.down2 = _pair(1, width), _pair(width, 2 * width)
        self.bottom = _pair(2 * width, 4 * width)
        self.up2, self.up1 = _pair(6 * width, 2 * width), _pair(3 * width, width)
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.bottom(self.pool(second))
        x = self.up2(torch.cat([second, self.grow(x)], 1))  # skip connections tie the channels of both sides
        x = self.up1(torch.cat([first, self.grow(x)], 1))
        out: Tensor = self.head(x)
        return out


def _pair(before: int, after: int) -> nn.Sequential:
    layers = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())


def pictures(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of noisy pictures with a disc and a square each, and the class of every pixel."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images, classes = torch.zeros(count, 1, 32, 32), torch.zeros(count, 32, 32, dtype=torch.int64)
    for image, label in zip(images, classes, strict=True):
        disc, square = torch.rand(2, 2, generator=generator) * 22 + 5
        inside = {1: (rows - disc[0]).hypot(columns - disc[1]) < 5}
        inside[2] = torch.maximum((rows - square[0]).abs(), (columns - square[1]).abs()) < 4
        for number, where in inside.items():
            image[0][where], label[where] = 1.0, number
        image += 0.3 * torch.randn(image.shape, generator=generator)
    return list(zip(images.split(16), classes.split(16), strict=True))


def main(epochs: int) -> None:
    torch.manual_seed(0)
    train, val = pictures(192, seed=0), pictures(64, seed=1)
    model = UNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for images, classes in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), classes).backward()
            optimizer.step()

    training = compressor.Training(search_epochs=epochs, finetune_epochs=epochs)
    data = {"train": train, "val": val, "task": "segmentation"}
    result = compressor.compress(model, train[0][0][:1], {"flops": "50%"}, data=data, training=training)
    (budget,), scores = result.report.budgets, result.report.accuracy
    assert scores is not None
    print(f"multiply-adds: {budget.original:.4g} -> {budget.reached:.4g}")
    print(f"overlap of regions: {scores.before:.1%} before, {scores.after_finetune:.1%} after")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    main(parser.parse_args().epochs)
