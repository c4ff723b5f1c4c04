"""A made-up choice, as another package would add one: which activation stands where. Its edit is beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from compressor.architecture.edits import Edit, Work
from compressor.graph import Graph
from compressor.graph.choices import ChoiceSite
from compressor.graph.groups import Alternative

ACTIVATIONS = ("ReLU", "Hardtanh", "Identity")


@dataclass(frozen=True)
class SwapActivation(Edit):
    """Another activation in the place of one."""

    module: str
    by: str

    kind: ClassVar[str] = "swap_activation"

    def check(self, work: Work) -> None:
        if type(work.modules.get(self.module)).__name__ not in ACTIVATIONS:
            self.refuse("there is no activation of this name")
        if self.by not in ACTIVATIONS:
            self.refuse(f"{self.by!r} is none of {', '.join(ACTIVATIONS)}")

    def apply_(self, work: Work) -> None:
        work.put_module_(self.module, getattr(nn, self.by)())


def find(model: nn.Module, graph: Graph) -> Sequence[ChoiceSite]:
    """Every ``nn.ReLU`` may be any of ``ACTIVATIONS``."""
    return [
        ChoiceSite(name, [Alternative(by, () if by == "ReLU" else (SwapActivation(name, by),)) for by in ACTIVATIONS])
        for name, module in model.named_modules()
        if type(module) is nn.ReLU
    ]
