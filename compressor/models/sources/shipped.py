"""The backbones that ship with the program; they come without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from compressor.backbones import BACKBONES
from compressor.models.base import Fetched, Plan, Request, WeightsUnavailableError


class ShippedSource:
    """Models of ``compressor.backbones``."""

    own_weights: str | None = None

    def own_weights_trained(self, name: str) -> bool:
        """A fresh model is random."""
        return False

    def names(self) -> list[str]:
        """The shipped backbones."""
        return BACKBONES.names()

    def plan(self, name: str, request: Request, *, pretrained: bool) -> Plan:
        """Pass the class count and the channels on; the model itself knows its input shape."""
        asked = {"num_classes": request.num_classes, "in_channels": request.in_channels}
        return Plan({key: value for key, value in asked.items() if value is not None})

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """A randomly initialised backbone."""
        model: nn.Module = BACKBONES.get(name)(**kwargs)
        return model

    def fetch(self, name: str) -> Fetched:
        """There are none: always raises."""
        raise WeightsUnavailableError(f"{name} ships without weights")
