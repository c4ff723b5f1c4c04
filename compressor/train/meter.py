"""Losses on their way to the history, watched for NaN without waiting for the GPU at every step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from compressor.errors import TrainingError
from compressor.train.resume.state import Counters

_GPU_EVERY = 20


class LossMeter:
    """Collects one loss per step. On the CPU each is looked at at once, on a GPU every 20 steps or when asked.

    ``note`` gives a clause about what was saved, for the error message, and ``why`` a sentence about what is lost.
    """

    def __init__(
        self, counters: Counters, device: torch.device, note: Callable[[], str] = str, why: Callable[[], str] = str
    ) -> None:
        self._counters = counters
        self._note, self._why = note, why
        self._every = 1 if device.type == "cpu" else _GPU_EVERY
        self._pending: list[Tensor] = []
        self.last = math.nan
        """The newest loss that was looked at."""

    def add(self, loss: Tensor) -> None:
        """Take the loss of the step that is running. Raises as ``drain`` does."""
        self._pending.append(loss.detach())
        if len(self._pending) >= self._every:
            self.drain(running=True)

    def drain(self, *, running: bool = False) -> None:
        """Look at the losses that wait.

        Raises:
            TrainingError: one is NaN or infinite; names the step (counted from 1) it came from.
        """
        if not self._pending:
            return
        values = torch.stack([loss.float() for loss in self._pending]).tolist()
        # The running step is not counted as done yet.
        first = self._counters.step + (2 if running else 1) - len(values)
        self._pending.clear()
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                why = self._why() if offset == len(values) - 1 else ""  # of the batch at hand
                raise TrainingError(
                    f"The loss became {value} at step {first + offset}{self._note()}. "
                    f"{why or 'Lower the learning rate, set grad_clip, or look for NaN in the data.'}"
                )
            self._counters.loss_sum += value
        self._counters.loss_count += len(values)
        self.last = values[-1]

    def take_mean(self) -> float | None:
        """Mean loss since the last call, None if there was no step."""
        self.drain()
        counters = self._counters
        mean = counters.loss_sum / counters.loss_count if counters.loss_count else None
        counters.loss_sum, counters.loss_count = 0.0, 0
        return mean
