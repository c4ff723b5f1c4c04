"""A fresh model from its description, as a saved folder carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from compressor.errors import UsageError
from compressor.models.base import Source
from compressor.models.described import require_known_source, require_registered, require_trusted
from compressor.models.sources import SOURCES
from compressor.process.generators import isolated_rng


def rebuild(
    description: Mapping[str, Any], *, trust_factories: Sequence[str] | None = None, longest: int = 2**20
) -> nn.Module:
    """A fresh model as ``LoadedModel.describe`` described it, in evaluation mode; its weights are to be loaded next.

    Args:
        trust_factories: factories, modules and packages whose code may be imported because the description says so;
            None for a description of the caller's own, which is trusted.
        longest: the longest axis of the model's parameters, as far as known.

    Raises:
        UsageError: the description is incomplete, names what is not registered or trusted, or cannot be built here.
    """
    try:
        spec, source_name, kwargs = description["spec"], description["source"], description["kwargs"]
    except KeyError as error:
        raise UsageError(f"The model description lacks {error}; expected spec, source and kwargs.") from error
    require_known_source(source_name)
    if source_name == "folder":
        saved: Source = SOURCES.get(source_name)(trust_factories or ())
        return saved.build(spec, kwargs).eval()
    name = name_in_source(spec, source_name)
    source: Source = SOURCES.get(source_name)()
    if source_name == "factory":
        if trust_factories is not None:
            require_trusted(name, trust_factories)
    else:
        require_registered(source_name, source, name, kwargs, longest)
    with isolated_rng():
        return source.build(name, kwargs).eval()


def name_in_source(spec: str, source_name: str) -> str:
    """What a source calls the model that a user calls ``spec``."""
    return spec.removeprefix(f"{source_name}:") if source_name in ("timm", "hf") else spec
