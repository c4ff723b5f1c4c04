"""Which module is running, also where a part of a masked model runs by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn

from compressor.graph.recording.module_stack import ModuleStack

Place = tuple[dict[str, Any], str]
"""The name space of a module, and what it calls a tensor."""


class PartStack(ModuleStack):
    """Knows which module is running, also in a part of the model that runs by itself, or whose forward is called past
    the module.

    Args:
        places: the modules it is asked about.
    """

    def __init__(self, model: nn.Module, places: set[str]) -> None:
        super().__init__(model)
        self._asked = {name: self.by_name[name] for name in places if name in self.by_name and name}
        self._inside = False
        self._alone: Callable[[], AbstractContextManager[None]] = nullcontext

    def position(self) -> tuple[list[str], dict[tuple[str, str], int]]:
        return list(self.stack), dict(self.counts)

    @contextmanager
    def at(self, position: tuple[list[str], dict[tuple[str, str], int]] | None) -> Iterator[None]:
        """Inside, the program is at ``position``; None: at the beginning of the model, or of a module by itself."""
        before, inside = (self.stack, self.counts), self._inside
        stack, counts = position or ([""], {})
        self.stack, self.counts, self._inside = list(stack), dict(counts), True
        try:
            yield
        finally:
            (self.stack, self.counts), self._inside = before, inside

    @contextmanager
    def watched(self, alone: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """``watch``; a module that is run by itself runs inside what ``alone`` gives."""
        before, self._alone = self._alone, alone
        spaces = [vars(module) for module in self._asked.values()]
        forwards = [space.get("forward") for space in spaces]
        try:
            for name, module in self._asked.items():
                vars(module)["forward"] = self._forward(name, module.forward)
            with self.watch():
                yield
        finally:
            self._alone = before
            put_back([(space, "forward") for space in spaces], forwards)

    def _watched(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        watched = super()._watched(name, run)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return watched(*args, **kwargs)
            with self._alone():
                return watched(*args, **kwargs)

        return call

    def _forward(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        past = self._watched(name, run)

        def forward(*args: Any, **kwargs: Any) -> Any:
            return run(*args, **kwargs) if self._inside and self.place == name else past(*args, **kwargs)

        return forward


def put_back(places: list[Place], before: list[Any]) -> None:
    """Give every place what it held before; ``None`` for nothing."""
    for (space, attribute), value in zip(reversed(places), reversed(before), strict=True):
        if value is None:
            space.pop(attribute, None)
        else:
            space[attribute] = value
