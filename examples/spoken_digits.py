"""Search the kernels of a network for signals: how many taps each convolution has, and how far apart they lie.

    python examples/spoken_digits.py                    # signals that are made here
    python examples/spoken_digits.py fsdd:DIR,rate=2000 # spoken digits, where they are at hand

A made word is two tones with a pause between them; which word it is, tones and pause say together. The kernels of 8, 5
and 3 taps that the network comes with see one or the other. What is found has trained for longer than what it is set
beside: for the epochs of the search and of fine-tuning, too.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor, nn

import compressor
from compressor.backbones.wide_resnet_1d import wrn1d
from compressor.data import Data, from_tensors, load_data

WORDS, SAMPLES = 10, 256


def words(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Signals (count, 1, 256) with noise, and the numbers of their words."""
    generator = torch.Generator().manual_seed(seed)
    word = torch.randint(0, WORDS, (count,), generator=generator)
    begin = torch.randint(0, 60, (count, 1), generator=generator)
    time = torch.arange(SAMPLES)[None] - begin
    pause = 20 + 12 * (word // 2)[:, None]
    first = (time >= 0) & (time < 40)
    second = (time >= 40 + pause) & (time < 80 + pause)
    pitch = 0.15 + 0.1 * (word % 2)[:, None]
    signal = torch.sin(2 * math.pi * pitch * time) * (first | second)
    return (signal + 0.4 * torch.randn(signal.shape, generator=generator))[:, None], word


def train(model: nn.Module, data: Data, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    model.train()
    for epoch in range(epochs):
        for signals, word in data.train.batches(32, shuffle_seed=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(signals), word).backward()
            optimizer.step()


def main(spec: str | None, epochs: int) -> None:
    torch.manual_seed(0)
    data = load_data(spec) if spec else from_tensors(words(480, seed=0), test=words(240, seed=1), name="made words")
    model = wrn1d(num_classes=WORDS)
    train(model, data, epochs)

    result = compressor.compress(
        model,
        data.example_inputs,
        {"flops": "400%"},  # kernels may grow, to four times the multiply-adds in all
        data=data,
        search="dash",
        options={"share": 1.0},  # there is little data, so each epoch takes all
        training=compressor.Training(search_epochs=epochs, finetune_epochs=epochs, batch_size=32, tune="none"),
    )
    for name, now in result.report.operators.items():
        print(
            f"{name}: {now.kernel_size_before[0]} taps, every {now.dilation_before[0]} -> "
            f"{now.kernel_size[0]} taps, every {now.dilation[0]}"
        )
    (budget,) = result.report.budgets
    print(f"multiply-adds: {budget.original:.4g} -> {budget.reached:.4g}, at most {budget.limit:.4g}")
    scores = result.report.accuracy
    assert scores is not None
    assert scores.before is not None
    assert scores.after_finetune is not None
    print(f"words that are mistaken: {1 - scores.before:.1%} before, {1 - scores.after_finetune:.1%} after")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="a data set, such as fsdd:DIR")
    parser.add_argument("--epochs", type=int, default=6, help="of training, of the search, and of fine-tuning")
    found = parser.parse_args()
    main(found.data, found.epochs)
