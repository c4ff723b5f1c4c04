"""Channels, heads and the like: any of them may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compressor.graph.groups.base import Group


@dataclass(eq=False)
class Channels(Group):
    """The channels of a layer, the heads of an attention: one at least stays."""

    kind: ClassVar[str] = "channels"
    component: ClassVar[str] = "width"
    ranked: ClassVar[bool] = True

    def step(self, multiple: int) -> int:
        return int(np.lcm(self.width, multiple)) // self.width

    @property
    def least(self) -> int:
        return 1
