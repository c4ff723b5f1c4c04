"""Inputs of files as arrays. Needs no PyTorch, which a machine that only measures does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from profilers.errors import ProfilerUsageError

AnyArray: TypeAlias = NDArray[Any]

#: Inputs with more numbers are not made up.
MOST_ELEMENTS = 1 << 28


@dataclass(frozen=True)
class Feeds:
    """Inputs that are ready, by the names of the file; passed in the place of ``example_inputs``."""

    arrays: Mapping[str, AnyArray]


def made_up(shapes: Sequence[Sequence[int]], types: Sequence[str], batch: int | None, *, seed: int) -> list[AnyArray]:
    """Random inputs of a file whose shapes and types are all that is known of them.

    Floating-point values are positive and never zero (zeros take short cuts in arithmetic); integers are 1, which is a
    valid index nearly everywhere. The batch is the first axis of those inputs that have the first size of the first.

    Args:
        types: names of NumPy types.
        batch: replaces the batch size; ``None`` leaves it.
    """
    random = np.random.default_rng(seed)
    size = shapes[0][0] if shapes and shapes[0] else None
    found: list[AnyArray] = []
    for given, kind in zip(shapes, types, strict=True):
        shape = list(given)
        if batch is not None and shape and shape[0] == size:
            shape[0] = batch
        dtype = np.dtype(kind)
        if dtype.kind == "f":
            values: NDArray[np.float32] = np.abs(random.standard_normal(shape, dtype=np.float32)) + np.float32(1e-3)
            found.append(values.astype(dtype))
        else:
            found.append(np.ones(shape, dtype=dtype))
    return found


def check_size(file: str, name: str, sizes: Sequence[int]) -> None:
    """Raise :class:`ProfilerUsageError` for an input that cannot be made up."""
    if min(sizes, default=1) < 1 or np.prod([float(size) for size in sizes]) > MOST_ELEMENTS:
        raise ProfilerUsageError(
            f"{file} asks for an input {name!r} of sizes {list(sizes)}; expected at least 1 each and at most "
            f"{MOST_ELEMENTS:,} numbers in all. Is the file damaged?"
        )
