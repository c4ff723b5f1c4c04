"""What the user froze, beside parameters: modules kept in evaluation mode, and statistics of normalisations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from compressor.train.modes import mode


def keeps_mode(model: nn.Module) -> list[nn.Module]:
    """Modules that stay in evaluation mode while ``model`` is trained: those that are in it though the model is not,
    and normalisations with running statistics whose weight and bias are frozen.

    A model that comes in evaluation mode as a whole says nothing about its parts.
    """
    return [m for m in model.modules() if (model.training and not m.training) or _has_frozen_affine(m)]


def keeps_statistics(model: nn.Module) -> set[nn.Module]:
    """Normalisations whose running statistics are not to be moved: those of ``keeps_mode``, and of momentum 0."""
    still = (m for m in model.modules() if isinstance(m, _NormBase) and m.momentum == 0)
    return {*still, *(m for m in keeps_mode(model) if isinstance(m, _NormBase))}


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Training mode for all of the model but what ``keeps_mode``; afterwards every module is in the mode it had."""
    kept = keeps_mode(model)
    with mode(model, training=True):
        for module in kept:
            module.training = False
        yield


def _has_frozen_affine(module: nn.Module) -> bool:
    own = list(module.parameters())
    statistics = isinstance(module, _NormBase) and module.track_running_stats
    return statistics and bool(own) and not any(parameter.requires_grad for parameter in own)
