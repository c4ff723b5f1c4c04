"""A model for commands that look at structure or speed: its weights do not matter, so none are downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.models import LoadedModel


def load_structure(
    spec: str,
    *,
    weights: str = "none",
    num_classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    trust_factories: tuple[str, ...] = (),
    folder: str | None = None,
) -> LoadedModel:
    """The model by name; a saved folder keeps the weights it has. With ``folder``, ``spec`` builds its original."""
    from compressor.models import load_model, resolve

    if weights == "none" and (folder is not None or resolve(spec)[0] == "folder"):
        weights = "default"
    if folder is not None and num_classes is not None:
        raise UsageError(f"The saved model in '{folder}' has a fixed head; leave --num-classes out.")
    return load_model(
        spec,
        weights=weights,
        num_classes=num_classes,
        example_shape=input_shape,
        trust_factories=trust_factories,
        folder=folder,
    )
