"""A small network that never changes, timed beside everything else: how fast is the device now?

Clocks, heat and neighbours change the speed of a device by several percent within minutes. Times are given as if the
reference took what it takes when nothing disturbs it (``undisturbed_ms``), so that those of different hours go
together.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from statistics import median

from profilers.base import Runner
from profilers.contention import BUSY
from profilers.stats import quiet_ms

#: The reference this much faster than it was thought to be without disturbance, a fraction: it was disturbed then.
FASTER = 0.07
#: A device this many times slower than undisturbed gives times that are worth little.
SLOW = 1.3

_LEAST_LOOKS, _MOST_LOOKS = 10, 60
_BUSY_LOOKS = 20
_AGREE = 0.02
_REST_S = 0.004


def clearly_faster(now_ms: float, undisturbed_ms: float) -> float | None:
    """``now_ms``, if it is less than ``undisturbed_ms`` beyond doubt."""
    return now_ms if now_ms < (1.0 - FASTER) * undisturbed_ms else None


class Reference:
    """The reference, loaded.

    Args:
        runner: the network. It is the caller's to close.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._recent: deque[float] = deque(maxlen=5)
        self._waited: deque[float] = deque(maxlen=_MOST_LOOKS)
        for _ in range(5):
            self.look()
        self.undisturbed_ms = self._fastest()

    def look(self) -> float:
        """Time it once more. Raises ``DeviceLostError`` if the device does not answer."""
        samples = self._runner.measure(8)
        self._waited.append(samples.waited)
        self._recent.append(quiet_ms(samples.after(2)))
        return self._recent[-1]

    def slower(self) -> float:
        """How much slower the device is at this moment than undisturbed, as a factor, by a single look."""
        return self.look() / self.undisturbed_ms

    def drift(self) -> float:
        """How much slower the device is lately than undisturbed, as a factor."""
        self.look()
        return self.recent_ms / self.undisturbed_ms

    def busy(self) -> bool:
        """Whether other work on the machine disturbs timings now."""
        self._waited.clear()
        slow = median(self.drift() for _ in range(_BUSY_LOOKS)) > SLOW
        return slow or sum(self._waited) / len(self._waited) > BUSY

    @property
    def recent_ms(self) -> float:
        """What it takes now."""
        return median(self._recent)

    def faster_ms(self) -> float | None:
        """What it takes now, if that is clearly less than ``undisturbed_ms``."""
        return clearly_faster(self.recent_ms, self.undisturbed_ms)

    def _fastest(self) -> float:
        """The fastest of many looks, as soon as three agree.

        Short runs after short rests find gaps even on busy cores, as schedulers let first who has slept.
        """
        looks = sorted(self._recent)
        while len(looks) < _LEAST_LOOKS or (len(looks) < _MOST_LOOKS and looks[2] > (1.0 + _AGREE) * looks[0]):
            time.sleep(_REST_S)
            insort(looks, self.look())
        return looks[0]
