"""Random numbers in training: seeds that follow from what they are for, and the global generators."""

from __future__ import annotations

import hashlib

from compressor.process.generators import isolated_rng, rng_state, seed_everything, set_rng_state

__all__ = ["derive_seed", "isolated_rng", "rng_state", "seed_everything", "set_rng_state"]


def derive_seed(*parts: int | str) -> int:
    """A 32-bit seed that depends on all ``parts`` and on nothing else, the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
