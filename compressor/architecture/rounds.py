"""Several rounds of compression as one architecture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.history import history
from compressor.errors import UsageError


def composed(rounds: Sequence[Architecture]) -> Architecture:
    """One architecture that does what ``rounds`` do, one after the other."""
    return reduce(Architecture.then, rounds)


def whole(model: nn.Module, last: Architecture) -> Architecture:
    """What makes ``model`` of a fresh original, ``last`` being the last round of it. Raises as ``history``."""
    known = [Architecture.from_json(document) for document in history(model)]
    return composed(known) if known and known[-1] == last else last


def known_whole(model: nn.Module, last: Architecture) -> Architecture:
    """The same, or ``last`` alone where it is not known what came before."""
    try:
        return whole(model, last)
    except UsageError:
        return last


def left_to_apply(model: nn.Module, wanted: Architecture) -> Architecture | None:
    """Of ``wanted``, what ``model`` has not been through yet; ``None`` for nothing.

    Raises:
        UsageError: it was made smaller in another way.
    """
    done = [Architecture.from_json(document) for document in history(model)]
    if not done:
        return wanted
    edits = composed(done).edits
    if wanted.edits[: len(edits)] != edits:
        raise UsageError(
            f"This {type(model).__name__} was compressed already, in another way than the folder's; "
            "pass a fresh original."
        )
    shapes = {name: list(tensor.shape) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    rest = wanted.edits[len(edits) :]
    return Architecture(wanted.model_class, shapes, rest) if rest else None
