"""Models that the user's own code makes, named ``package.module:factory``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from compressor.errors import UnsupportedModelError, UsageError
from compressor.models.base import Fetched, Plan, Request, WeightsUnavailableError
from compressor.plugins.importing import import_attribute


class FactorySource:
    """Calls a function or class, with ``num_classes``, ``in_channels``, ``dense`` (a prediction for every position) and
    ``vocabulary`` (inputs are tokens) as far as they are asked for and its signature takes them."""

    own_weights: str | None = "the factory"

    def own_weights_trained(self, name: str) -> bool:
        """The user's code knows what it makes; it is not second-guessed."""
        return True

    def names(self) -> list[str]:
        """Factories cannot be listed."""
        return []

    def plan(self, name: str, request: Request, *, pretrained: bool) -> Plan:
        """Refuse what was asked for but the factory does not take, unless it is merely implied by the data."""
        accepted = _parameters(import_attribute(name, "model factory"))
        return Plan(request.arguments(accepted))

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """Call the factory. Raises ``UnsupportedModelError`` if it raises, ``UsageError`` if it makes no module."""
        factory = import_attribute(name, "model factory")
        if isinstance(factory, nn.Module):
            return factory
        if not callable(factory):
            raise UsageError(f"The model factory {name} is a {type(factory).__name__}; expected a function or class.")
        try:
            model = factory(**kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # one that ends the process, too, is a failure of the factory
            raise UnsupportedModelError(f"The model factory {name} raised {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise UsageError(f"The model factory {name} returned a {type(model).__name__}; expected a torch.nn.Module.")
        return model

    def fetch(self, name: str) -> Fetched:
        """The factory decides about weights: always raises."""
        raise WeightsUnavailableError("a factory makes its own weights")


def _parameters(factory: object) -> set[str]:
    """Names a call accepts. ``**kwargs`` does not count: it says nothing about what is understood."""
    if not callable(factory) or isinstance(factory, nn.Module):
        return set()
    try:
        return set(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return set()
