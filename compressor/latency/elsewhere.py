"""A device that another process measures."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.latency.target import LatencySession, Prediction
from compressor.latency.term import Latency


@dataclass(frozen=True)
class MeasuredElsewhere:
    """What the processes that do not measure are told of a ``LatencySession``; see its attributes."""

    term: Latency
    prediction: Prediction
    original_ms: float
    liked: dict[str, int]

    @classmethod
    def told(cls, session: LatencySession) -> MeasuredElsewhere:
        """What ``session`` found."""
        return cls(session.term, session.prediction, session.original_ms, session.multiples())

    def multiples(self) -> dict[str, int]:
        """Widths the device likes, by group."""
        return self.liked

    def close(self) -> None:
        """There is nothing to give back."""
