"""Search in a training loop of one's own: three lines more than training alone.

    python examples/own_training_loop.py [--search dnarch]      # about half a minute; handwritten digits, no download

``prepare`` puts masks into the model, ``cost_loss`` pulls it under the budget, ``finish`` returns the small network.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import compressor
from compressor.data import load_data


class Net(nn.Module):
    """Any module will do; nothing in it knows of compression."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


def accuracy(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    return right / sum(len(y) for _, y in batches)


def main(epochs: int, search: str) -> None:
    torch.manual_seed(0)
    data = load_data("digits")
    train = list(data.train.batches(64, shuffle_seed=0, augment=False))
    test = list((data.test or data.val).batches(256))
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    steps = epochs * len(train)
    session = compressor.prepare(model, data.example_inputs, {"flops": "50%"}, search=search, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        for x, y in train:
            loss = nn.functional.cross_entropy(model(x), y) + session.cost_loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.step()
        print(f"epoch {epoch + 1}: expected multiply-adds {session.costs()['flops']:.0%} of the original's")
    small = session.finish()
    print(f"after the search: {accuracy(small, test):.1%} right, verified to {session.check.error:.0e}")

    optimizer = torch.optim.SGD(small.parameters(), lr=0.02, momentum=0.9)
    small.train()
    for _ in range(epochs):
        for x, y in train:
            loss = nn.functional.cross_entropy(small(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    before, after = (sum(p.numel() for p in net.parameters()) for net in (model, small))
    print(f"after fine-tuning: {accuracy(small, test):.1%} right, {after} of {before} parameters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the search, and of fine-tuning")
    parser.add_argument("--search", choices=["figs", "dnarch"], default="figs")
    main(**vars(parser.parse_args()))
