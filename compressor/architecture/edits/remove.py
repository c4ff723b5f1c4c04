"""Take a module or a parameter out of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from compressor.architecture.edits.base import Edit, Work
from compressor.errors import UsageError
from compressor.nn.stubs import stand_in, stub

_STUB = re.compile(r"(identity|first|zeros?|one|empty)\d?(@\w{1,100})?(\+[\w,]{1,200})?")
SCALAR = "scalar"


@dataclass(frozen=True)
class Remove(Edit):
    """``by`` says what stands in its place, see ``compressor.nn.stubs``; ``"scalar"`` for a parameter."""

    name: str
    by: str

    kind: ClassVar[str] = "remove"

    def check(self, work: Work) -> None:
        if self.by == SCALAR:
            owner, _, attribute = self.name.rpartition(".")
            if owner not in work.modules or attribute not in work.modules[owner]._parameters:
                self.refuse("the model has no such parameter")
        elif not self.name or self.name not in work.modules:
            self.refuse("the model has no such module")
        elif not _is_stub(self.by):
            self.refuse(
                f"{self.by[:40]!r} replaces nothing; known are identity, first, zero, zeros, one, empty and scalar"
            )

    def apply_(self, work: Work) -> None:
        if self.by == SCALAR:
            module, attribute = work.owner(self.name)
            like = module._parameters.pop(attribute)
            dtype, device = (like.dtype, like.device) if like is not None else (None, None)
            zero = torch.zeros((), dtype=dtype, device=device)
            module.register_buffer(attribute, zero, persistent=False)
            work.forget()
        else:
            work.put_module_(self.name, stand_in(self.by, work.modules[self.name]))

    def copied(self, work: Work) -> dict[int, Any]:
        if self.by == SCALAR or self.name not in work.modules:
            return {}
        return {id(work.modules[self.name]): stand_in(self.by, work.modules[self.name])}

    def finish_(self, copy: Work) -> None:
        if self.by == SCALAR:
            self.apply_(copy)


def _is_stub(kind: str) -> bool:
    try:
        return _STUB.fullmatch(kind) is not None and stub(kind) is not None
    except UsageError:
        return False
