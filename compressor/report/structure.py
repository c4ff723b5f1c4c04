"""What changed in the network, for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from compressor.storage.codec import Range

Count = Annotated[int, Range(0, 2**63)]


@dataclass(frozen=True)
class LeftAlone:
    """Something that was left alone: where, which operator, why."""

    place: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Width:
    """Output channels of one layer before and after; 0 after for one that was removed, before for one that is new."""

    layer: str
    before: Count
    after: Count
    kind: str = ""


@dataclass(frozen=True)
class ChoiceMade:
    """What was at a site of a choice, and what is there now; ``kind`` is that of the choice."""

    name: str
    kind: str
    before: str
    after: str


@dataclass(frozen=True)
class Convolution:
    """What a convolution has become at a site where a search chose: one number per spatial axis each.

    ``input_size`` is what the site reads, in samples; empty where it is not known, as are those before.
    """

    kernel_size: list[Count]
    dilation: list[Count]
    kernel_size_before: list[Count] = field(default_factory=list)
    dilation_before: list[Count] = field(default_factory=list)
    input_size: list[Count] = field(default_factory=list)


@dataclass(frozen=True)
class Probabilities:
    """How likely each alternative at a site was during the search; ``weights`` has a row for each of ``steps``."""

    name: str
    alternatives: list[str]
    steps: list[Count]
    weights: list[list[Annotated[float, Range(0, 1)]]]


@dataclass(frozen=True)
class BlockShape:
    """A residual block, or a layer outside of any: its sizes before and after; those after are empty if it was removed,
    and those before if the network has grown by it.

    Kernel and resolution have one number per spatial axis and are empty where there is none. Widths are the channels
    going in, then those that each layer gives.
    """

    name: str
    kernel_before: list[Count]
    kernel_after: list[Count]
    resolution_before: list[Count]
    resolution_after: list[Count]
    width_before: list[Count]
    width_after: list[Count]
    residual: bool

    @property
    def removed(self) -> bool:
        """Whether it was taken out."""
        return not self.width_after

    @property
    def new(self) -> bool:
        """Whether the original has none."""
        return not self.width_before


@dataclass(frozen=True)
class Cell:
    """Operators side by side whose results are summed or concatenated, by name, and which of them are kept."""

    operators: list[str]
    kept: list[str]


@dataclass(frozen=True)
class AttributeChange:
    """A module attribute that the trim had to mend."""

    module: str
    attribute: str
    before: Any
    after: Any
