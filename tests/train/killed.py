"""A training run in a process of its own, made to be killed. Prints each step; writes the final bits and history.

Arguments: checkpoint file, result file, seconds between checkpoints, optimizer name.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.train import Hooks, TrainConfig, Trainer
from tests.train.tiny import fingerprint, tiny_data, tiny_model


class Multiplier:
    """A number that grows with the steps, as the multiplier of a budget does."""

    def __init__(self) -> None:
        self.value = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "pair": (1, torch.tensor(self.value))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class GatedSearch(Hooks):
    """Random gates on the first layer's channels: logits with an Adam of their own, a multiplier, a scale."""

    def __init__(self, model: nn.Sequential) -> None:
        self.logits = nn.Parameter(torch.full((8,), 2.5))
        self.scale = nn.Parameter(torch.ones(1))
        self.adam = torch.optim.Adam([self.logits], lr=0.02)
        self.multiplier = Multiplier()
        self.gates = torch.ones(8)

    def param_groups(self) -> Sequence[dict[str, Any]]:
        return [{"params": [self.scale], "lr": 0.01}]

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"logits": self.adam}

    @property
    def stateful(self) -> Mapping[str, Any]:
        return {"multiplier": self.multiplier}

    def before_step(self, step: int, total_steps: int) -> None:
        noise = torch.rand(8).clamp(1e-6, 1 - 1e-6)
        self.gates = torch.sigmoid(self.logits + noise.log() - (1 - noise).log())

    def forward(self, model: nn.Module, inputs: Tensor) -> Tensor:
        layers = list(model.children())
        features = layers[1](layers[0](inputs)) * (self.gates * self.scale)[:, None, None]
        for layer in layers[2:]:
            features = layer(features)
        return features

    def penalty(self) -> Tensor:
        return self.multiplier.value * self.logits.sigmoid().mean()

    def after_step(self, step: int, total_steps: int) -> None:
        self.multiplier.value += 0.01
        print(step, flush=True)
        time.sleep(0.002)

    def log(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier.value}


def main(checkpoint: str, result: str, interval_s: str, optimizer: str) -> None:
    torch.set_num_threads(1)
    model = tiny_model()
    search = GatedSearch(model)
    config = TrainConfig(
        epochs=5,
        batch_size=8,
        optimizer=optimizer,
        lr=0.05 if optimizer == "sgd" else 0.002,
        warmup_epochs=0.5,
        distill=0.3,
        grad_clip=1.0,
        evaluate_every=2,
        log_every=7,
        checkpoint_seconds=float(interval_s),
    )
    trainer = Trainer(model, tiny_data(), config, teacher=tiny_model(seed=9), hooks=search, checkpoint=Path(checkpoint))
    history = trainer.run().history
    bits = {name: hashlib.sha256(value).hexdigest() for name, value in fingerprint(model).items()}
    bits["logits"] = hashlib.sha256(search.logits.detach().numpy().tobytes()).hexdigest()
    bits["scale"] = hashlib.sha256(search.scale.detach().numpy().tobytes()).hexdigest()
    Path(result).write_text(json.dumps({"bits": bits, "history": history}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
