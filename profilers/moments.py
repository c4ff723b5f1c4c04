"""Which moments of a device count: those in which nothing slows it down.

The cores of a virtual machine may be one physical core for seconds at a time, and clocks are throttled. All networks
are slower then, but not alike: on two such cores one took .67 times as long as another in most moments, and .77 times
as long in those in which both were 1.7 times slower.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profilers.stats import paired_ratios

#: A burst that takes this many times as long as the network's quick ones was slowed down. Where a network lies in
#: memory makes up to 1.05, sharing a physical core 1.3 and more.
SLOWED = 1.15
#: What fewer bursts, or loads, would say is worth less than what all of them say.
LEAST_QUIET = 3

_QUICK_PERCENT = 10


def quick_ms(bursts: Sequence[float]) -> float:
    """What a network takes when nothing slows it down: the quick ones of its bursts."""
    return float(np.percentile(bursts, _QUICK_PERCENT))


def quiet_ratios(bursts: Sequence[float], baseline: Sequence[float], quick: tuple[float, float]) -> list[float]:
    """:func:`profilers.stats.paired_ratios` without those for which one of the two was slowed down.

    Args:
        quick: what the two take when nothing slows them down, see :func:`quick_ms`.
    """
    slow, slow_baseline = (SLOWED * value for value in quick)
    ratios = paired_ratios(bursts, baseline)
    return [
        ratio
        for index, (ratio, took) in enumerate(zip(ratios, bursts, strict=True))
        if took <= slow and max(baseline[index : index + 2]) <= slow_baseline
    ]
