"""Search while a Lightning Trainer trains, then fine-tune the small network with another Trainer.

    pip install 'compressor[lightning]'
    python examples/lightning_callback.py --epochs 6      # handwritten digits, no download

The module knows nothing of compression. Interrupted, the first training goes on with ``fit(ckpt_path="last")``.
"""

from __future__ import annotations

import argparse
import warnings

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from compressor.data import load_data
from compressor.integrations.lightning import CompressionCallback


class Digits(lightning.LightningModule):
    """An ordinary LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        right = (self.net(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log("right", right, batch_size=len(batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def trainer(epochs: int, *callbacks: lightning.Callback) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, callbacks=list(callbacks), gradient_clip_val=5.0,
        accumulate_grad_batches=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


def main(epochs: int) -> None:
    warnings.simplefilter("ignore")
    lightning.seed_everything(0, verbose=False)
    data = load_data("digits")
    train, val = (
        DataLoader(TensorDataset(*next(split.batches(len(split)))), batch_size=32, shuffle=split is data.train)
        for split in (data.train, data.val)
    )
    digits = Digits()
    before = sum(p.numel() for p in digits.parameters())

    callback = CompressionCallback(data.example_inputs, {"flops": "50%"})
    trainer(epochs, callback).fit(digits, train, val)  # afterwards digits.net is small
    (found,) = trainer(0).validate(digits, val, verbose=False)
    print(f"after the search: {found['right']:.1%} right, verified to {callback.session.check.error:.0e}")

    trainer(epochs).fit(digits, train, val)
    (found,) = trainer(0).validate(digits, val, verbose=False)
    after = sum(p.numel() for p in digits.parameters())
    print(f"after fine-tuning: {found['right']:.1%} right, {after} of {before} parameters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="epochs of the search, and of fine-tuning")
    main(**vars(parser.parse_args()))
