"""What a source of models must offer, and the values that pass between a source and the loader."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from compressor.errors import CompressorError
from exporters.example import Example


@dataclass(frozen=True)
class Request:
    """What the user wants of a model; None leaves it to the model's default.

    ``dense`` asks for a prediction at every position, ``vocabulary`` for inputs that are tokens, ``grow`` for a network
    so many times as wide and as deep.
    """

    num_classes: int | None = None
    in_channels: int | None = None
    input_shape: tuple[int, ...] | None = None
    dense: bool = False
    vocabulary: int | None = None
    grow: int | None = None

    def arguments(self, accepted: Container[str]) -> dict[str, Any]:
        """What was asked for as keyword arguments, as far as they are accepted."""
        names = ("num_classes", "in_channels", "dense", "vocabulary", "grow")
        return {name: value for name in names if name in accepted and (value := getattr(self, name))}


@dataclass(frozen=True)
class Plan:
    """How to build a model: JSON-able arguments of ``Source.build``, and what is known about its input: the shape of
    one without the batch axis, or a whole example."""

    kwargs: dict[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    example_inputs: Tensor | Example | None = None


@dataclass(frozen=True)
class Fetched:
    """Pretrained weights: the state dict, where it comes from, and prefixes of keys that a model may lack.

    ``fill``, where a library loads its weights by itself, puts them into a model that was built, and returns the names
    of those that it leaves random; there is no state then.
    """

    state: Mapping[str, Tensor]
    origin: str
    optional_prefixes: tuple[str, ...] = ()
    fill: Callable[[nn.Module], tuple[str, ...]] | None = None


class WeightsUnavailableError(CompressorError):
    """Pretrained weights cannot be had now; the message is the reason. Never reaches the user as an error."""


class Source(Protocol):
    """A place models come from. ``build`` depends on its arguments alone, so that a model can be built again."""

    own_weights: str | None
    """Where the weights of a freshly built model come from if they are not random, in words."""

    def own_weights_trained(self, name: str) -> bool:
        """Whether the weights of a freshly built ``name`` are to be taken for trained ones."""
        ...

    def names(self) -> list[str]:
        """The names of all models of this source; empty where they cannot be listed."""
        ...

    def plan(self, name: str, request: Request, *, pretrained: bool) -> Plan:
        """How to build ``name`` as requested, for its pretrained weights or for others."""
        ...

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """A new model, randomly initialised from torch's global generator unless ``own_weights`` says otherwise."""
        ...

    def fetch(self, name: str) -> Fetched:
        """Pretrained weights from the cache or the network. Raises ``WeightsUnavailableError``."""
        ...
