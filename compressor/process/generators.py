"""The global random generators of Python, NumPy and PyTorch: a thread's own for a while, and then as they were found.

Dropout, augmentation and the loaders of users draw from them, and no thread can have others. So one thread at a time
has them, and who keeps them for a whole training run lets others in between two steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from compressor.process.sharing import Turn

_TURN = Turn()


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators, those of every CUDA device included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The states of the global generators, as a tree of JSON values and tensors."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the global generators back to what ``rng_state`` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


@contextmanager
def isolated_rng(inside: dict[str, Any] | None = None, *, seed: int | None = None) -> Iterator[Callable[[], None]]:
    """Leave the caller's generators as they were found, whatever is drawn inside; no other thread draws meanwhile.

    Yields a function that lets other threads have their turn, if any wait; what is drawn after it is what would have
    been drawn without it.

    Args:
        inside: states to begin with, see ``rng_state``; seed: or a seed. Default: as they are.
    """
    has_turn = False
    outside: dict[str, Any] | None = None

    def enter() -> None:
        nonlocal has_turn, outside
        _TURN.take()
        has_turn = True
        outside = rng_state()

    def leave() -> None:
        nonlocal has_turn, outside
        try:
            if outside is not None:
                set_rng_state(outside)
        finally:
            outside = None
            if has_turn:
                has_turn = False
                _TURN.leave()

    def give_way() -> None:
        if not _TURN.wanted:
            return
        mine = rng_state()
        leave()
        enter()
        set_rng_state(mine)

    try:
        enter()
        if inside is not None:
            set_rng_state(inside)
        if seed is not None:
            seed_everything(seed)
        yield give_way
    finally:
        leave()


def seeded_state(seed: int) -> dict[str, Any]:
    """The states that ``seed_everything`` gives, without touching any generator but CUDA's, which stay out of it."""
    version, words, gauss = random.Random(seed).getstate()
    name, keys, position, has_gauss, cached = np.random.RandomState(seed % 2**32).get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), has_gauss, cached],
        "torch": torch.Generator().manual_seed(seed).get_state(),
    }
