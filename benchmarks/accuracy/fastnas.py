"""NVIDIA Model Optimizer's FastNAS as a cut: widths by how far accuracy falls when one layer alone is narrowed.

Needs nvidia-modelopt. Widths may be any of its twenty shares of a layer; its own divisor of 32 would leave the small
networks of these benchmarks as they are.
"""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import torch
from torch import nn

from compressor.data import Data
from compressor.train import evaluate
from compressor.train.batchnorm import recalibrate_batchnorm


def fastnas(
    model: nn.Module, data: Data, share: float, *, images: int = 1000, batches: int = 8, seed: int = 0
) -> nn.Module:
    """The network at ``share`` of its multiply-adds that FastNAS finds.

    Args:
        images: of the training split that a narrowed network is scored on, and
        batches: on which its batch norms are recalibrated before.

    Raises:
        RuntimeError: it fails, or a network so small lies outside of its search space.
    """
    import modelopt.torch.nas as mtn
    from modelopt.torch.prune.fastnas import FastNASConfig

    train: Any = data.train
    scored = train.subset(torch.arange(min(images, len(train))))

    def score(subject: nn.Module) -> float:
        recalibrate_batchnorm(subject, data.train, batches=batches, seed=seed)
        found = evaluate(subject, scored).accuracy
        assert found is not None  # these are classifiers
        return found

    rules: dict[str, Any] = FastNASConfig().model_dump()
    for rule in rules.values():
        for settings in rule.values() if isinstance(rule, dict) else ():
            for key in ("channel_divisor", "feature_divisor"):
                if isinstance(settings, dict) and key in settings:
                    settings[key] = 1
    space = mtn.convert(copy.deepcopy(model), [("fastnas", rules)])
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found: nn.Module = mtn.search(
                space, {"flops": f"{share:.2%}"}, data.example_inputs, {"score_func": score, "verbose": False}
            )[0]
    except Exception as error:
        raise RuntimeError(f"FastNAS: {error}") from error
    return found
