"""Folders that an earlier job wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import UsageError
from compressor.models.base import Fetched, Plan, Request, WeightsUnavailableError


class FolderSource:
    """Compressed models as saved: architecture and weights.

    Args:
        trust_factories: what a folder may name to be imported, see ``compressor.load``.
        original: a fresh original, for one folder alone.
    """

    def __init__(self, trust_factories: Sequence[str] = (), *, original: nn.Module | None = None) -> None:
        self._trust_factories = tuple(trust_factories)
        self._original = original

    own_weights: str | None = "the saved folder"

    def own_weights_trained(self, name: str) -> bool:
        """What the folder's report says of the original's weights; True if it has none."""
        from compressor.models.artifact import REPORT, load_report

        return load_report(name).pretrained if (Path(name) / REPORT).is_file() else True

    def names(self) -> list[str]:
        """Folders are not listed."""
        return []

    def plan(self, name: str, request: Request, *, pretrained: bool) -> Plan:
        """A saved model is what it is: another head or other input channels are refused.

        Its example input is the one it was saved with, unless a shape is asked for.
        """
        from compressor.models.artifact import example_inputs

        if request.num_classes is not None or request.in_channels is not None:
            raise UsageError(
                f"The saved model in '{name}' has a fixed head and input; leave class and channel counts out."
            )
        inputs = example_inputs(name, batch=1)
        if request.input_shape is None:
            return Plan({}, example_inputs=inputs.args[0] if inputs is not None and inputs.is_one_tensor else inputs)
        if inputs is not None and not inputs.is_one_tensor:
            raise UsageError(
                f"The saved model in '{name}' takes {len(inputs.tensors)} inputs, which it knows itself; leave the "
                "input shape out."
            )
        return Plan({}, request.input_shape)

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """The saved model with its saved weights."""
        from compressor.models.artifact import load

        model: nn.Module = load(name, self._original, trust_factories=self._trust_factories)
        return model

    def fetch(self, name: str) -> Fetched:
        """The weights come with the model: always raises."""
        raise WeightsUnavailableError("a saved folder has its own weights")
