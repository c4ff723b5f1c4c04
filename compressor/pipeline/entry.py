"""The way into a model while a session is open: its forward is led past the session, its copies are plain models."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

from compressor.errors import UsageError

Run = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``run(forward, args, kwargs)``: the model's output."""

Given = TypeVar("Given")
Method = TypeVar("Method", bound=Callable[..., Any])


def trains(method: Method) -> Method:
    """A method of a session that makes, moves or reads what is trained: so in whatever mode it is called."""

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            return method(*args, **kwargs)

    return called  # type: ignore[return-value]


@contextmanager
def entered_for_good(context: AbstractContextManager[Given]) -> Iterator[Given]:
    """``context``, entered outside inference mode: what is made and kept there serves forwards that learn, too."""
    with ExitStack() as stack:
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            found = stack.enter_context(context)
        yield found


_open: weakref.WeakSet[nn.Module] = weakref.WeakSet()
WHY = (
    "masks of an open session (compressor.prepare) act in this model, so it runs as it is written; compile it without "
    "fullgraph=True until session.finish()"
)


def require_free(model: nn.Module) -> None:
    """Raise ``UsageError`` if there is a session on the model, or on a part of it, already."""
    if any(module in _open for module in model.modules()):
        raise UsageError(
            f"{type(model).__name__} has an open session, or a part of it has; call finish() or close() of that "
            "session before the next compressor.prepare."
        )


class Entry:
    """Puts ``run`` before a model's forward, in the instance, where compiled callers find it too.

    ``run`` itself is never compiled: masks are tensors of their own in every step, in modules that a compiler takes to
    stay as they are. Copies and pickles of the model are made as if there were no session.

    Args:
        aside: inside what it gives, modules have no masks; it says whether they had some.
    """

    def __init__(self, model: nn.Module, run: Run, aside: Callable[[], AbstractContextManager[bool]]) -> None:
        self._model, self._aside, forward = model, aside, model.forward

        @functools.wraps(forward)
        def entered(*args: Any, **kwargs: Any) -> Any:
            return run(forward, args, kwargs) if self._mine else forward(*args, **kwargs)

        self._mine: dict[str, Any] = {
            "forward": torch.compiler.disable(entered, reason=WHY),  # type: ignore[no-untyped-call]
            "__deepcopy__": self._deep_copy,
            "__reduce_ex__": self._reduce,
            "_replicate_for_data_parallel": _refuse_replicas,
        }
        space = vars(model)
        self._before = {name: space[name] for name in self._mine if name in space}
        space.update(self._mine)
        _open.update(model.modules())

    @property
    def is_open(self) -> bool:
        return bool(self._mine)

    def close(self) -> None:
        """Give the model back; what others have put in place of ours meanwhile stays, and goes past the session."""
        if self._mine:
            self._leave(self._mine)
            self._mine = {}
            for module in self._model.modules():
                _open.discard(module)

    def _leave(self, mine: dict[str, Any]) -> None:
        space = vars(self._model)
        for name, ours in mine.items():
            if space.get(name) is ours:
                del space[name]
                if name in self._before:
                    space[name] = self._before[name]

    @contextmanager
    def _away(self) -> Iterator[None]:
        """Inside, the model has nothing of ours."""
        space = vars(self._model)
        mine = {name: ours for name, ours in self._mine.items() if space.get(name) is ours}
        self._leave(mine)
        try:
            yield
        finally:
            space.update(mine)

    def _deep_copy(self, memo: dict[int, Any]) -> nn.Module:
        with self._aside(), self._away():
            return copy.deepcopy(self._model, memo)

    def _reduce(self, protocol: Any) -> Any:
        with self._aside() as masked, self._away():
            if masked:
                raise UsageError("A model inside session.masked() would be stored with its masks; store it after that.")
            reduced = self._model.__reduce_ex__(protocol)
            own = vars(self._model)
            return tuple(dict(own) if part is own else part for part in reduced) if type(reduced) is tuple else reduced


def _refuse_replicas() -> nn.Module:
    raise UsageError(
        "DataParallel runs copies of the model, and masks act in the model itself; use DistributedDataParallel."
    )
