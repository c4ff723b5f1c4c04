"""The tensors of a pass in the modules of a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from compressor.nn.modules import as_written
from compressor.nn.swap import swapped_tensors


class Shadows:
    """Stands ``names`` of ``copy`` for tensors; ``written``: what is compiled inside runs as it is written."""

    def __init__(self, copy: nn.Module, names: list[str], modules: dict[str, nn.Module], *, written: bool) -> None:
        self._copy, self._names, self._modules, self._written = copy, names, modules, written

    @contextmanager
    def placed(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """See ``masks.recompute.Stage``."""
        named = dict(zip(self._names, tensors, strict=True))
        with as_written() if self._written else nullcontext(), swapped_tensors(self._copy, named, self._modules):
            yield

    def calls(self, tensors: Sequence[Tensor], position: Any) -> AbstractContextManager[None]:
        """There are no masks at calls."""
        return nullcontext()

    def position(self) -> None:
        """Anywhere."""

    def start(self) -> AbstractContextManager[None]:
        """Anywhere, too."""
        return nullcontext()
