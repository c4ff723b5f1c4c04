"""The learning rate over a run: a linear warm-up, then half a cosine or a flight of steps.

Both are functions of the step alone: a resumed run needs no scheduler's state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def cosine_with_warmup(step: int, total_steps: int, warmup_steps: int = 0, final_fraction: float = 0.0) -> float:
    """Factor on the peak learning rate for the step of index ``step`` in ``range(total_steps)``.

    It rises linearly to 1 over ``warmup_steps``, then falls along a cosine towards ``final_fraction``, which it
    would reach one step after the last.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def steps_with_warmup(
    step: int, total_steps: int, milestones: Sequence[float], decay: float, warmup_steps: int = 0
) -> float:
    """Factor on the peak learning rate for the step of index ``step`` in ``range(total_steps)``.

    It rises linearly to 1 over ``warmup_steps``, and is multiplied by ``decay`` at each of ``milestones``, fractions
    of all steps, rounded to a whole one.
    """
    passed = sum(step >= round(milestone * total_steps) for milestone in milestones)
    rise = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    return float(rise * decay**passed)
