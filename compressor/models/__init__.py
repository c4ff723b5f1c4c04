"""Models by name: torchvision's, timm's, the user's own, saved folders and the backbones that ship."""

from __future__ import annotations

from compressor.models.loaded import LoadedModel, list_models, load_model, resolve, with_example
from compressor.models.rebuilding import rebuild
from compressor.models.weights import WeightsInfo, fit_state_dict, read_state_dict

__all__ = [
    "LoadedModel",
    "WeightsInfo",
    "fit_state_dict",
    "list_models",
    "load_model",
    "read_state_dict",
    "rebuild",
    "resolve",
    "with_example",
]
