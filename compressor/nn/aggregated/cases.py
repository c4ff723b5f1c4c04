"""What decides which form of a mixture is the quickest, and what a form took."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from compressor.nn.aggregated.candidates import Candidate, Ints


@dataclass(frozen=True)
class Case:
    """All that decides which form is the quickest.

    Args:
        candidates, lefts, excess, stride, channels (in, out), groups, bias: the layer.
        dtype, autocast: of the weights, and of autocast or "".
        device, threads: where it runs; threads are 0 on other devices than the CPU.
        learns: whether gradients of inputs, kernels and shares are computed.
        batch, size: of the input.
    """

    candidates: tuple[Candidate, ...]
    lefts: tuple[Ints, ...]
    excess: Ints
    stride: Ints
    channels: tuple[int, int]
    groups: int
    bias: bool
    dtype: str
    autocast: str
    device: str
    threads: int
    learns: tuple[bool, bool, bool]
    batch: int
    size: Ints

    @property
    def layer(self) -> Case:
        """The case without the input's size."""
        return dataclasses.replace(self, batch=0, size=())


@dataclass(frozen=True)
class Took:
    """Times of one form.

    Args:
        seconds: of each run, none if it was left out.
        why: the reason it was left out.
    """

    seconds: tuple[float, ...] = ()
    why: str = ""
