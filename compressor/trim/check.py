"""What a comparison of the trimmed and the masked network found."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.errors import VerificationError

TOLERANCE = 1e-9
SINGLE_TOLERANCE = 1e-4  # for models that cannot run in float64


@dataclass(frozen=True)
class Check:
    """``error`` is max |difference| / max |output| over all outputs; ``reason`` says why it is infinite.

    Attributes:
        dtype: the precision both models ran in.
        inputs: on what they were compared.
        seen: share of the kept units, of groups that lose some, whose change would have been noticed; ``None`` where
            that could not be measured.
        unseen: where no change of any would, their groups.
    """

    error: float
    tolerance: float = TOLERANCE
    reason: str = ""
    dtype: str = "float64"
    inputs: tuple[str, ...] = ()
    seen: float | None = None
    unseen: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


@dataclass
class TrimResult:
    """A trimmed model that was verified; ``refused`` lists groups and blocks left whole, as it was not exact."""

    model: nn.Module
    architecture: Architecture
    check: Check
    refused: list[str]
    reason: str = ""

    def require_exact(self) -> None:
        """Raise ``VerificationError`` if the check fails even with everything restored that was not exact."""
        if not self.check.passed:
            raise VerificationError(
                f"The trimmed model differs from the masked one by {self.check.error:.1e} (allowed "
                f"{self.check.tolerance:.0e}) even with nothing removed: {self.check.reason or 'unknown cause'}. "
                "Does its forward use random numbers, or state that changes between calls?"
            )
