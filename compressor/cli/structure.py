"""A model for commands that look at structure or speed: its weights do not matter, so none are downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressor.models import LoadedModel


def load_structure(
    spec: str, *, weights: str = "none", num_classes: int | None = None, input_shape: tuple[int, ...] | None = None
) -> LoadedModel:
    """The model by name; a saved folder keeps the weights it has."""
    from compressor.models import load_model, resolve

    if weights == "none" and resolve(spec)[0] == "folder":
        weights = "default"
    return load_model(spec, weights=weights, num_classes=num_classes, example_shape=input_shape)
