"""Several budgets at once: a front of networks, the best for a budget that nobody asked for, and the page of it.

    python examples/sweep_budgets.py            # about a minute; handwritten digits, no download

Each search begins at the network for the next larger budget. ``search="supernet"`` trains once for all budgets instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import compressor
from compressor.backbones.resnet_cifar import resnet20_cifar
from compressor.data import load_data
from compressor.train import TrainConfig, Trainer, evaluate


def main(epochs: int, out: Path, search: str) -> None:
    torch.manual_seed(0)
    data = load_data("digits")
    model = resnet20_cifar(num_classes=10, in_channels=1)
    Trainer(model, data, TrainConfig(epochs=epochs)).run()

    front = compressor.sweep(
        model,
        data.example_inputs,
        [{"flops": "25%"}, {"flops": "50%"}, {"flops": "75%"}],
        data=data,
        search=search,
        training=compressor.Training(search_epochs=epochs, finetune_epochs=epochs),
        folder=out,
    )
    for point in front.points:
        beaten = f", beaten by {point['dominated_by']}" if point["dominated_by"] else ""
        print(f"{point['name']}: {point['costs']['flops']:.4g} multiply-adds, {point['score']:.1%} right{beaten}")

    result = front.pick({"flops": "60%"})
    accuracy = evaluate(result.model, data.test or data.val).accuracy
    print(f"the best within 60 %: {result.report.costs[0].reached:.4g} multiply-adds, {accuracy:.1%} right")
    print(f"saved {out}, with {out / 'front.html'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4, help="epochs of training, of search and of fine-tuning")
    parser.add_argument("--search", default="figs", help="the search method")
    parser.add_argument("--out", type=Path, default=Path("sweep"), help="folder of the results")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.out, arguments.search)
