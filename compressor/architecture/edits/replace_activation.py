"""Put another activation in the place of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compressor.architecture.edits.base import Edit, Work

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
}
"""What can be put in the place of what, by name. None has weights."""


@dataclass(frozen=True)
class ReplaceActivation(Edit):
    """A module of one of the types in ``ACTIVATIONS`` becomes one of the type ``activation`` names."""

    module: str
    activation: str

    kind: ClassVar[str] = "replace_activation"

    def check(self, work: Work) -> None:
        module = work.modules.get(self.module)
        if module is None or not self.module:
            self.refuse("the model has no such module")
        if type(module) not in ACTIVATIONS.values():
            self.refuse(f"a {type(module).__name__} is none of the activations {', '.join(ACTIVATIONS)}")
        if self.activation not in ACTIVATIONS:
            self.refuse(f"the activation {self.activation[:40]!r} is unknown; known are {', '.join(ACTIVATIONS)}")

    def apply_(self, work: Work) -> None:
        work.put_module_(self.module, self._made(work.modules[self.module]))

    def copied(self, work: Work) -> dict[int, Any]:
        module = work.modules[self.module]
        return {id(module): self._made(module)}

    def finish_(self, copy: Work) -> None:
        """Nothing is left to do: the copy was made with the activation in place."""

    def _made(self, module: nn.Module) -> nn.Module:
        # In place only where the one before was: then nothing else reads what the activation is given.
        kind = ACTIVATIONS[self.activation]
        in_place = bool(getattr(module, "inplace", False)) and kind is not nn.GELU
        made = kind(inplace=True) if in_place else kind()
        return made.train(module.training)
