"""The frequencies of a branch along one axis, which go from above. The constant is none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressor.graph.groups.base import Group


@dataclass(eq=False)
class Frequencies(Group):
    """Two samples each: a branch without its highest frequencies computes on fewer samples."""

    kind: ClassVar[str] = "resolution"
    component: ClassVar[str] = "resolution"
