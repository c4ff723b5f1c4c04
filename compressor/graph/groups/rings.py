"""The rings of a kernel along one axis, which go from the outside. The centre is none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressor.arrays import IntArray
from compressor.graph.groups.base import Group


@dataclass(eq=False)
class Rings(Group):
    """Two taps of a kernel each, one on either side."""

    kind: ClassVar[str] = "kernel"
    component: ClassVar[str] = "kernel"

    @property
    def inwards(self) -> IntArray:
        return self.units[::-1]
