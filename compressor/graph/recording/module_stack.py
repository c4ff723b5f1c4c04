"""Which module is running, and how often it has run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from compressor.nn.walk import first_names, named_modules


def function_name(func: Callable[..., Any]) -> str:
    """A short name for a PyTorch function: ``conv2d``, ``layer_norm``, ``view``, ``__getitem__``."""
    name: str = getattr(func, "__name__", None) or str(func)
    return name.partition(".")[0]  # an exported program calls operators by overload, ``view.default``


class ModuleStack:
    """Knows which module is running."""

    def __init__(self, model: nn.Module) -> None:
        self.by_every_name: dict[str, nn.Module] = dict(named_modules(model))
        self.by_name: dict[str, nn.Module] = first_names(self.by_every_name)
        self.stack: list[str] = [""]
        self.counts: dict[tuple[str, str], int] = {}

    @property
    def place(self) -> str:
        return self.stack[-1]

    def ordinal(self, name: str) -> int:
        """How often the function ``name`` was called before in the running module."""
        key = (self.stack[-1], name)
        count = self.counts.get(key, 0)
        self.counts[key] = count + 1
        return count

    def entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A module starts to run."""

    def left(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """The module that entered last returns."""

    @contextmanager
    def watch(self) -> Iterator[ModuleStack]:
        """Inside, the stack follows the model.

        Each module sees, in its own dictionary, another ``_call_impl``. Global forward hooks would tell the same, but
        with any hook PyTorch takes a path through a module call that costs more than the operators we record.
        """
        placed: list[tuple[dict[str, Any], Any]] = []
        try:
            for name, module in self.by_name.items():
                space = vars(module)
                placed.append((space, space.get("_compiled_call_impl")))
                space["_call_impl"] = self._watched(name, module._call_impl)
                space["_compiled_call_impl"] = None  # a compiled forward would not be seen
            yield self
        finally:
            for space, compiled in placed:
                space.pop("_call_impl", None)
                space.pop("_compiled_call_impl", None)
                if compiled is not None:
                    space["_compiled_call_impl"] = compiled

    def _watched(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            output = None
            self.stack.append(name)
            self.entered(name, args, kwargs)
            try:
                output = run(*args, **kwargs)
            finally:
                self.left(args, kwargs, output)
                self.stack.pop()
            return output

        return call
