"""The learning rate over a run: a linear warm-up, then half a cosine."""

from __future__ import annotations

import math


def cosine_with_warmup(step: int, total_steps: int, warmup_steps: int = 0, final_fraction: float = 0.0) -> float:
    """Factor on the peak learning rate for the step of index ``step`` in ``range(total_steps)``.

    It rises linearly to 1 over ``warmup_steps``, then falls along a cosine towards ``final_fraction``, which it
    would reach one step after the last. A function of the step alone: a resumed run needs no scheduler's state.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
