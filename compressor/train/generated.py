"""Networks whose weights another network computes, in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from compressor.nn.swap import swapped_tensors
from compressor.train import Hooks
from compressor.train.splits import call_model


class ComputedWeights(Hooks):
    """Trains what computes the weights in their place."""

    def __init__(self, source: nn.Module) -> None:
        self.source = source

    def param_groups(self) -> Sequence[dict[str, Any]]:
        return [{"params": list(self.source.parameters())}]

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        with swapped_tensors(model, self.source()):
            return call_model(model, inputs)
