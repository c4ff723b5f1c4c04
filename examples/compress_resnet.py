"""Compress a ResNet-20 to half of its multiply-adds in one call, save it, load it again, export it.

    python examples/compress_resnet.py            # about a minute; handwritten digits, no download

The network is trained first, so that there is an accuracy to keep. With a network of your own, start at ``compress``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import compressor
from compressor.backbones.resnet_cifar import resnet20_cifar
from compressor.data import load_data
from compressor.train import TrainConfig, Trainer, evaluate


def main(epochs: int, out: Path) -> None:
    torch.manual_seed(0)
    data = load_data("digits")  # any loaders do: data=(train_loader, val_loader)
    model = resnet20_cifar(num_classes=10, in_channels=1)
    Trainer(model, data, TrainConfig(epochs=epochs)).run()

    result = compressor.compress(
        model,
        data.example_inputs,
        budgets={"flops": "50%", "params": "60%"},
        data=data,
        # The original, which stays as it is, teaches the small one.
        training=compressor.Training(finetune_epochs=2 * epochs, distill=0.3),
    )

    for budget in result.report.budgets:
        print(f"{budget.cost}: {budget.original:.4g} -> {budget.reached:.4g} {budget.unit}, asked {budget.asked}")
    for name, network in (("original", model), ("compressed", result.model)):
        print(f"{name}: {evaluate(network, data.test or data.val).accuracy:.1%} right")
    print(f"layer1.0.conv1 keeps channels {result.architecture.kept('layer1.0.conv1.weight', 0)}")

    result.save(out)
    again = compressor.load(out, model=resnet20_cifar(num_classes=10, in_channels=1))
    assert torch.equal(again(data.example_inputs), result.model(data.example_inputs))
    print(f"saved {out}, exported {', '.join(str(path) for path in result.export(out))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of training, of search and of fine-tuning")
    parser.add_argument("--out", type=Path, default=Path("out/compressed-resnet20"))
    given = parser.parse_args()
    main(given.epochs, given.out)
