"""Typed edits: what is done to a fresh original, one after the other, to make the compressed network of it.

Each kind of edit is a file of its own and a line here. Other distributions add theirs through the entry-point group
``compressor.edits``.
"""

from __future__ import annotations

from typing import Any

from compressor.architecture.edits.base import Edit, Work
from compressor.architecture.edits.keep_resolution import KeepResolution
from compressor.architecture.edits.move_stride import MoveStride
from compressor.architecture.edits.place_pooling import PlacePooling
from compressor.architecture.edits.remove import Remove
from compressor.architecture.edits.renumber import Renumber
from compressor.architecture.edits.replace_activation import ReplaceActivation
from compressor.architecture.edits.replace_convolution import ReplaceConvolution
from compressor.architecture.edits.resample import Resample
from compressor.architecture.edits.set_sizes import SetSizes
from compressor.architecture.edits.slice import Slice
from compressor.errors import UsageError
from compressor.plugins.registry import Registry

EDITS = Registry(
    "edit",
    {
        "slice": "compressor.architecture.edits.slice:Slice",
        "remove": "compressor.architecture.edits.remove:Remove",
        "set_sizes": "compressor.architecture.edits.set_sizes:SetSizes",
        "renumber": "compressor.architecture.edits.renumber:Renumber",
        "resample": "compressor.architecture.edits.resample:Resample",
        "replace_convolution": "compressor.architecture.edits.replace_convolution:ReplaceConvolution",
        "replace_activation": "compressor.architecture.edits.replace_activation:ReplaceActivation",
        "keep_resolution": "compressor.architecture.edits.keep_resolution:KeepResolution",
        "move_stride": "compressor.architecture.edits.move_stride:MoveStride",
        "place_pooling": "compressor.architecture.edits.place_pooling:PlacePooling",
    },
    group="compressor.edits",
)


def edit_from_json(document: Any, place: str) -> Edit:
    """Any edit from what its ``to_json`` wrote. Raises ``UsageError`` with the place of what is wrong."""
    kind = document.get("edit") if isinstance(document, dict) else None
    if not isinstance(kind, str):
        raise UsageError(f"{place} is no edit: expected an object with the key 'edit'.")
    if kind not in EDITS:
        raise UsageError(f"{place} is of the unknown kind {kind[:40]!r}; known are {', '.join(EDITS)}.")
    found: Edit = EDITS.get(kind).from_json(document, place)
    return found


__all__ = [
    "EDITS",
    "Edit",
    "KeepResolution",
    "MoveStride",
    "PlacePooling",
    "Remove",
    "Renumber",
    "ReplaceActivation",
    "ReplaceConvolution",
    "Resample",
    "SetSizes",
    "Slice",
    "Work",
    "edit_from_json",
]
