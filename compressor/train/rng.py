"""Random numbers in training: seeds that follow from what they are for, and the global generators."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager

from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from compressor.process.generators import isolated_rng, rng_state, seed_everything, set_rng_state

__all__ = ["derive_seed", "isolated_rng", "outside_transforms", "rng_state", "seed_everything", "set_rng_state"]


def derive_seed(*parts: int | str) -> int:
    """A 32-bit seed that depends on all ``parts`` and on nothing else, the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def outside_transforms() -> AbstractContextManager[object]:
    """Inside, what is drawn is drawn once, also where a model runs in ``torch.func.vmap``, which would draw for each
    example or refuse to draw at all."""
    return temporarily_clear_interpreter_stack()
