"""Let a branch compute on fewer samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressor.architecture.edits.base import Edit, Work
from compressor.nn import resampling

_MOST_SAMPLES = 2**25  # of a resampling matrix


@dataclass(frozen=True)
class Resample(Edit):
    """The inputs of ``inputs`` are resampled, and the output of ``output`` back.

    ``sizes`` has, per spatial axis, the samples outside and inside; ``block`` is the branch's name.
    """

    output: str
    inputs: list[str]
    sizes: list[list[int]]
    block: str = ""

    kind: ClassVar[str] = "resample"

    def check(self, work: Work) -> None:
        for name in (*self.inputs, self.output):
            if name not in work.modules:
                self.refuse(f"the model has no module {name[:60]!r}")
            if any(key.startswith((resampling.BEFORE, resampling.AFTER)) for key in work.modules[name]._buffers):
                self.refuse(f"{name[:60]!r} is resampled already")
        if not 0 < len(self.sizes) <= 4:
            self.refuse("sizes must have one pair for each spatial axis")
        for pair in self.sizes:
            if len(pair) != 2 or not 1 <= pair[1] <= pair[0] or pair[0] * pair[1] > _MOST_SAMPLES:
                self.refuse(f"{pair[:4]} are no samples outside and inside a branch")

    def apply_(self, work: Work) -> None:
        resampling.attach_(work.model, self.inputs, self.output, self.sizes)
        work.forget()
