"""One file per place that models come from."""

from __future__ import annotations

from compressor.plugins.registry import Registry

SOURCES = Registry(
    "model source",
    {
        "shipped": "compressor.models.sources.shipped:ShippedSource",
        "torchvision": "compressor.models.sources.torchvision:TorchvisionSource",
        "timm": "compressor.models.sources.timm:TimmSource",
        "hf": "compressor.models.sources.hf:HuggingFaceSource",
        "factory": "compressor.models.sources.factory:FactorySource",
        "folder": "compressor.models.saved_folder:FolderSource",
    },
    group="compressor.model_sources",
)

__all__ = ["SOURCES"]
