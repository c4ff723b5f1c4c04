"""What was done to a network so far, kept with the module itself.

A second round starts from the first one's result, and its architecture says what becomes of that. A fresh original
becomes the result only by both. What was done is kept as text, in the module's instance dictionary: copies of the
module have it, too, and a module that is stored whole needs nothing of ours for it.
"""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from compressor.errors import UsageError
from compressor.nn.multihead import NarrowAttention
from compressor.nn.pooled import is_pooled
from compressor.nn.resampling import AFTER, BEFORE
from compressor.nn.stubs import First, Zero

_ATTRIBUTE = "_compressed_by"
_UNKNOWN = "unknown"


def history(model: nn.Module) -> list[dict[str, Any]]:
    """The architectures applied to ``model``, in order, as JSON documents; empty for an original.

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


def remember(model: nn.Module, document: dict[str, Any], before: nn.Module | None = None) -> None:
    """Note on ``model`` that the architecture in ``document`` made it of ``before``, or of what it was itself."""
    original = model if before is None else before
    first = original.__dict__.get(_ATTRIBUTE, ())
    if not first and before is not None and _is_marked(before):
        first = (_UNKNOWN,)
    model.__dict__[_ATTRIBUTE] = (*first, json.dumps(document, sort_keys=True))


def _is_marked(model: nn.Module) -> bool:
    """Whether a network has parts that only a compression puts there."""
    names = (name for module in model.modules() for name in module._buffers)
    parts = any(isinstance(m, (NarrowAttention, First, Zero)) or is_pooled(m) for m in model.modules())
    return parts or any(name.startswith((BEFORE, AFTER)) for name in names)
