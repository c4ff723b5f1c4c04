"""What was done to a network so far: the architectures applied to it, in order, kept with the module itself.

A second round starts from the first one's result, and its architecture says what becomes of that. A fresh original
becomes the result only by all of them. They are kept as text, in the module's instance dictionary, so that copies of
the module have them, too, and a module that is stored whole needs nothing of ours for them.
"""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.errors import UsageError
from compressor.nn.multihead import NarrowAttention
from compressor.nn.resampling import AFTER, BEFORE
from compressor.nn.stubs import First, Zero

_ATTRIBUTE = "_compressed_by"
_UNKNOWN = "unknown"


def history(model: nn.Module) -> list[dict[str, Any]]:
    """The architectures applied to ``model``, as JSON documents; empty for an original.

    Raises:
        UsageError: it was compressed before, but not how is known.
    """
    found = model.__dict__.get(_ATTRIBUTE, ())
    if _UNKNOWN in found:
        raise UsageError(
            f"This {type(model).__name__} was compressed from a network that had been compressed before, and what "
            "was done to that one is not known, so that a fresh original could not become it. Start the second round "
            "from result.model of the first, or from compressor.load."
        )
    return [json.loads(text) for text in found]


def rounds(model: nn.Module, architecture: Architecture) -> list[dict[str, Any]]:
    """What makes ``model`` of a fresh original, ``architecture`` being the last of it. Raises as ``history``."""
    known, own = history(model), _text(architecture.to_json())
    return known if known and _text(known[-1]) == own else [json.loads(own)]


def remember(model: nn.Module, architecture: Architecture, before: nn.Module | None = None) -> None:
    """Note on ``model`` that ``architecture`` made it of ``before``; without ``before``, of what it was itself."""
    original = model if before is None else before
    first = original.__dict__.get(_ATTRIBUTE, ())
    if not first and before is not None and _is_marked(before):
        first = (_UNKNOWN,)
    model.__dict__[_ATTRIBUTE] = (*first, json.dumps(architecture.to_json(), sort_keys=True))


def left_to_apply(model: nn.Module, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the architectures of a folder, those that ``model`` has not been through yet.

    Raises:
        UsageError: it was made smaller in another way.
    """
    done = [_text(document) for document in history(model)]
    wanted = [_text(document) for document in documents]
    if done != wanted[: len(done)]:
        raise UsageError(
            f"This {type(model).__name__} was compressed already, in another way than the folder's; "
            "pass a fresh original."
        )
    return documents[len(done) :]


def _text(document: dict[str, Any]) -> str:
    return json.dumps(Architecture.from_json(document).to_json(), sort_keys=True)


def _is_marked(model: nn.Module) -> bool:
    """Whether a network has parts that only a compression puts there."""
    names = (name for module in model.modules() for name in module._buffers)
    parts = any(isinstance(module, (NarrowAttention, First, Zero)) for module in model.modules())
    return parts or any(name.startswith((BEFORE, AFTER)) for name in names)
