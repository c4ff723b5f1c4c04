"""Whether processes that are to do one job together were given the same one."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.nn.tensors import state
from compressor.pipeline.settings import Settings
from compressor.process.ranks import Ranks
from exporters.example import Example

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.data.base import Split

_LOOKED_AT = 32  # samples of a split

OTHER_WORK = (
    "Processes 0 and {other}, which are to train together, were given different work: {name} differs ({first} and "
    "{second}). Give all of them the same model with the same weights, the same whole data set (each takes its part of "
    "every batch) and the same arguments; for work that each does by itself pass process_group=, a group of one."
)
_APART = frozenset({"budgets", "loss_fn", "target", "base", "method", "config", "trial_workers"})


def require_same_work(ranks: Ranks, model: nn.Module, example: Example, settings: Settings, data: Data | None) -> None:
    """Raise ``UsageError``, in all processes, if anything that decides the result differs; names the first thing."""
    if ranks.size == 1:
        return
    mine: dict[str, Any] = {
        "the model": f"{type(model).__name__} with {sum(p.numel() for p in model.parameters())} parameters",
        "the names or shapes of weights": _digest({name: tuple(t.shape) for name, t in state(model).items()}),
        "the value of weights": _digest(state(model)),
        "example_inputs": _digest(example.tensors),
        "a budget": ", ".join(f"{budget.cost} {budget.text}" for budget in settings.budgets),
    }
    mine |= {each.name: repr(getattr(settings, each.name)) for each in fields(settings) if each.name not in _APART}
    mine["loss_fn"] = None if settings.loss_fn is None else getattr(settings.loss_fn, "__qualname__", "given")
    mine["the data"] = "none" if data is None else repr(data.describe())
    for part in ("train", "val", "test"):
        split = None if data is None else getattr(data, part)
        mine[f"the {part} split"] = None if split is None else _digest(_first(split, settings.seed))
    ranks.agree(mine, list(mine), OTHER_WORK)


def _first(split: Split, seed: int) -> Any:
    return next(iter(split.batches(_LOOKED_AT, shuffle_seed=seed)), None)


def _digest(value: Any) -> str:
    """Of the exact content of nested tensors and other values."""
    found = hashlib.sha256()
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.update(repr((leaf.dtype, tuple(leaf.shape))).encode())
            found.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(repr(leaf).encode())
    return found.hexdigest()[:12]
