"""A session in a checkpoint of the user's own: masks, their optimizers, and what else the method keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from compressor.errors import UsageError
from compressor.search.training.learner import Learner


def state_of(learner: Learner, masks: Sequence[nn.Parameter], steps: int) -> dict[str, Any]:
    """After so many ``steps``; ``masks`` are what the learner's masks are made of."""
    return {
        "masks": [parameter.detach() for parameter in masks],
        "optimizers": {name: each.state_dict() for name, each in learner.optimizers().items()},
        "method": {name: each.state_dict() for name, each in learner.stateful.items()},
        "steps": steps,
        "seed": learner.seed,
    }


def load_(learner: Learner, masks: Sequence[nn.Parameter], state: Mapping[str, Any]) -> int:
    """Bring a learner to what ``state_of`` returned; returns the steps done then.

    Raises:
        UsageError: the state is of another model, method or program version. Nothing is changed then.
    """
    given = state.get("masks", [])
    shapes = [tuple(p.shape) for p in masks], [tuple(p.shape) for p in given]
    if shapes[0] != shapes[1] or set(state.get("method", {})) != set(learner.stateful):
        raise UsageError(
            f"The state has masks of shapes {shapes[1]}, this session has {shapes[0]}; prepare the same model with "
            "the arguments that the state was made with."
        )
    if not all(bool(torch.isfinite(value).all()) for value in given):
        raise UsageError("The state has masks that are NaN or infinite; go on from an earlier one.")
    with torch.no_grad():
        for parameter, value in zip(masks, given, strict=True):
            parameter.copy_(value)
    for name, optimizer in learner.optimizers().items():
        optimizer.load_state_dict(state["optimizers"][name])
    for name, each in learner.stateful.items():
        each.load_state_dict(state["method"][name])
    learner.seed = state.get("seed", learner.seed)
    return int(state["steps"])
