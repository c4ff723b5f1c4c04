"""A session in a checkpoint of the user's own: masks, their optimizers, and what else the method keeps."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.options import shown
from compressor.search.training.learner import Learner


def state_of(learner: Learner, masks: Sequence[nn.Parameter], steps: int) -> dict[str, Any]:
    """After so many ``steps``; ``masks`` are what the learner's masks are made of."""
    return {
        "masks": [parameter.detach() for parameter in masks],
        "optimizers": {name: each.state_dict() for name, each in learner.optimizers().items()},
        "method": {name: each.state_dict() for name, each in learner.stateful.items()},
        "steps": steps,
        "seed": learner.seed,
        "order": torch.tensor(learner.order(), dtype=torch.int64),
    }


def load_(learner: Learner, masks: Sequence[nn.Parameter], state: Any) -> int:
    """Bring a learner to what ``state_of`` returned; returns the steps done then.

    Raises:
        UsageError: the state is of another model, method or program version. Nothing is changed then.
    """
    given = state.get("masks") if isinstance(state, Mapping) else None
    if not isinstance(given, Sequence) or not all(isinstance(value, Tensor) for value in given):
        raise UsageError(
            f"{shown(state)} is no state of a session; prepare the same model and pass what the state_dict() of its "
            "session returned."
        )
    shapes = [tuple(p.shape) for p in masks], [tuple(p.shape) for p in given]
    if shapes[0] != shapes[1] or set(state.get("method", {})) != set(learner.stateful):
        raise UsageError(
            f"The state has masks of shapes {shapes[1]}, this session has {shapes[0]}; prepare the same model with "
            "the arguments that the state was made with."
        )
    if any(value.is_meta for value in given):
        raise UsageError("The state has masks without values, on the meta device; load it on a device that has some.")
    if not all(bool(torch.isfinite(value).all()) for value in given):
        raise UsageError("The state has masks that are NaN or infinite; go on from an earlier one.")
    before = copy.deepcopy(state_of(learner, masks, 0))
    try:
        return _put(learner, masks, state)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        _put(learner, masks, before)
        reason = next(iter(str(error).splitlines()), "")
        raise UsageError(
            f"The state is incomplete, or of another model, method or program version ({type(error).__name__}: {reason}"
            "); prepare the same model with the arguments that the state was made "
            "with, and load it as state_dict() returned it."
        ) from error


def _put(learner: Learner, masks: Sequence[nn.Parameter], state: Mapping[str, Any]) -> int:
    steps, seed = int(state["steps"]), state.get("seed", learner.seed)
    if steps < 0 or not isinstance(seed, int | None):
        raise ValueError(f"{steps} steps, seed {seed}")
    if "order" in state:  # else it is of an earlier version
        learner.arrange(state["order"].tolist())
    with torch.no_grad():
        for parameter, value in zip(masks, state["masks"], strict=True):
            parameter.copy_(value)
    for name, optimizer in learner.optimizers().items():
        optimizer.load_state_dict(state["optimizers"][name])
    for name, each in learner.stateful.items():
        each.load_state_dict(state["method"][name])
    learner.seed = seed
    return steps
