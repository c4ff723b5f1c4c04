"""``torch.compile`` of what is trained, where it can be had; where not, the network runs as it is written."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.process.ranks import Ranks

logger = logging.getLogger(__name__)


class Compiled:
    """Called as the model is. The first call compiles; if that fails, it is said, and from then on nothing is compiled.

    Parameters, buffers and modes are the model's own throughout.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._run: Any = torch.compile(model, dynamic=False)
        self._works: bool | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._works:
            return self._run(*args, **kwargs)
        if self._works is None:
            try:
                found = self._run(*args, **kwargs)
            except Exception as error:
                self._works = False
                reason = str(error).strip().splitlines()
                logger.warning(
                    "%s cannot be compiled (%s); it runs as it is written.",
                    type(self._model).__name__,
                    " ".join(reason[:2]) or type(error).__name__,
                )
            else:
                self._works = True
                return found
        return self._model(*args, **kwargs)


def runnable(model: nn.Module, ranks: Ranks, *, compiles: bool, plain: bool) -> Any:
    """What a training step calls for the model: compiled, if that is asked for and can be.

    Args:
        plain: whether the model runs with its own weights and modules; masks and mixtures stand in others.
    """
    if not compiles or not plain:
        return model
    if ranks.size > 1 and any(isinstance(module, _BatchNorm) for module in model.modules()):
        logger.warning("Batch statistics over several processes are not compiled; the network runs as it is written.")
        return model
    return Compiled(model)
