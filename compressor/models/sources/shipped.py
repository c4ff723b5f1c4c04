"""The backbones that ship with the program; they come without weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from compressor.backbones import BACKBONES
from compressor.errors import UsageError
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
        """Pass the request on; the model itself knows its input shape.

        Raises ``UsageError`` for tokens, dense predictions or growth where the backbone knows none.
        """
        accepted = inspect.signature(BACKBONES.get(name)).parameters
        cannot = {"vocabulary": "takes no tokens", "dense": "predicts one class and no field",
                  "grow": "has one size"}  # fmt: skip
        for what, does in cannot.items():
            if getattr(request, what) and what not in accepted:
                able = [n for n in self.names() if what in inspect.signature(BACKBONES.get(n)).parameters]
                raise UsageError(f"{name} {does}; use {', '.join(able)} or a model factory of your own.")
        kwargs = request.arguments(accepted)
        if "input_shape" in accepted and request.input_shape is not None:
            kwargs["input_shape"] = list(request.input_shape)
        return Plan(kwargs)

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """A randomly initialised backbone."""
        model: nn.Module = BACKBONES.get(name)(**kwargs)
        return model

    def fetch(self, name: str) -> Fetched:
        """There are none: always raises."""
        raise WeightsUnavailableError(f"{name} ships without weights")
