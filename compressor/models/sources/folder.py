"""Folders that an earlier job wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from compressor.errors import UsageError
from compressor.models.base import Fetched, Plan, Request, WeightsUnavailableError


class FolderSource:
    """Compressed models as saved: architecture and weights."""

    own_weights: str | None = "the saved folder"

    def names(self) -> list[str]:
        """Folders are not listed."""
        return []

    def plan(self, name: str, request: Request, *, pretrained: bool) -> Plan:
        """A saved model is what it is: another head or other input channels are refused."""
        if request.num_classes is not None or request.in_channels is not None:
            raise UsageError(
                f"The saved model in '{name}' has a fixed head and input; leave class and channel counts out."
            )
        return Plan({}, request.input_shape)

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """The saved model with its saved weights."""
        from compressor.artifact import load

        model: nn.Module = load(name)
        return model

    def fetch(self, name: str) -> Fetched:
        """The weights come with the model: always raises."""
        raise WeightsUnavailableError("a saved folder has its own weights")
