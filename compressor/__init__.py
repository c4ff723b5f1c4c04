"""Hardware-aware compression of PyTorch networks.

    import compressor
    result = compressor.compress(model, example_inputs, {"flops": "50%"}, data=(train_loader, val_loader))
    result.model        # an ordinary, smaller module of the same class
    result.save("out")

Importing this package imports nothing heavy; names are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from compressor.plugins import moved
from compressor.storage.version import VERSION as __version__

if TYPE_CHECKING:
    from compressor.api import compress, prepare, sweep
    from compressor.architecture.architecture import Architecture
    from compressor.errors import CompressorError
    from compressor.graph import Graph, capture
    from compressor.integrations.trackers.listener import TrackerListener
    from compressor.jobs.recipes.run import load_recipe, run
    from compressor.latency.target import TargetSettings
    from compressor.models.artifact import load
    from compressor.pipeline.arguments import Scope, Training
    from compressor.pipeline.result import Result
    from compressor.report import Report
    from compressor.service.client import Client

moved.install()

_NAMES = {
    "Architecture": "compressor.architecture.architecture",
    "Client": "compressor.service.client",
    "CompressorError": "compressor.errors",
    "Graph": "compressor.graph",
    "Report": "compressor.report",
    "Result": "compressor.pipeline.result",
    "Scope": "compressor.pipeline.arguments",
    "TargetSettings": "compressor.latency.target",
    "TrackerListener": "compressor.integrations.trackers.listener",
    "Training": "compressor.pipeline.arguments",
    "capture": "compressor.graph",
    "compress": "compressor.api",
    "load": "compressor.models.artifact",
    "load_recipe": "compressor.jobs.recipes.run",
    "prepare": "compressor.api",
    "run": "compressor.jobs.recipes.run",
    "sweep": "compressor.api",
}

__all__ = [
    "Architecture",
    "Client",
    "CompressorError",
    "Graph",
    "Report",
    "Result",
    "Scope",
    "TargetSettings",
    "TrackerListener",
    "Training",
    "__version__",
    "capture",
    "compress",
    "load",
    "load_recipe",
    "prepare",
    "run",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
