"""Forwards whose history nobody needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError

Found = TypeVar("Found")


class Inference:
    """Runs forwards without gradients; with them where a forward takes some itself and leaves it to its caller to
    switch them on, as networks do that give the forces of an energy.

    The first call finds out which: what raises without gradients, and not with them, wants them from then on. Either
    way what is found has no history.

    Args:
        model: whose buffers are put back where the first call fails half way.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._on: bool | None = None

    def __call__(self, call: Callable[[], Found]) -> Found:
        """What ``call`` gives. The first may be made twice, so it must not change what it is given.

        Raises:
            Exception: whatever ``call`` raises without gradients, unless it runs with them.
        """
        if self._on is not None:
            return _run(call, self._on)
        buffers = [(b, b.clone()) for b in self._model.buffers() if not isinstance(b, UninitializedBuffer)]
        try:
            found = _run(call, False)
        except (CompressorError, torch.OutOfMemoryError):
            raise
        except Exception as failure:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            try:
                found = _run(call, True)
            except Exception:
                raise failure from failure.__cause__
            self._on = True
        else:
            self._on = False
        return found


def _run(call: Callable[[], Found], on: bool) -> Found:
    with torch.set_grad_enabled(on):
        found = call()
    return pytree.tree_map(_without_history, found) if on else found


def _without_history(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf
