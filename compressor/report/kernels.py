"""The convolutions whose kernels a search chose, site by site, and in one line as papers write them.

The notation is that of Shen et al., "Efficient Architecture Search for Diverse Tasks", 2022, appendix A.8:
``Block_{64,(7,1),(9,3)}`` is a residual block that gives 64 channels, with a convolution of kernel size 7 and
dilation 1 and then one of 9 and 3; a convolution outside of blocks is ``Conv_{64,(7,1)}``. What had no choice is not
written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compressor.report.records import Report
from compressor.report.structure import BlockShape


@dataclass(frozen=True)
class Kernel:
    """Kernel size and dilation, one number per spatial axis each."""

    size: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def text(self) -> str:
        """``(7,1)``, and ``(1x7,3)`` where axes differ."""
        return f"({_short(self.size)},{_short(self.dilation)})"

    @property
    def extent(self) -> tuple[int, ...]:
        """Samples from the first tap to the last, both counted, per axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))


@dataclass(frozen=True)
class Site:
    """One convolution. ``before`` and ``channels`` are None, and ``input_size`` is empty, where they are not known.

    Attributes:
        block: the residual block that it is in, or a block of the same class; None outside of any.
        channels: those that it gives in the compressed network, 0 if it was removed.
    """

    name: str
    block: BlockShape | None
    channels: int | None
    before: Kernel | None
    after: Kernel
    input_size: tuple[int, ...]

    @property
    def changed(self) -> bool:
        """Whether its kernel is another one now."""
        return self.before is not None and self.before != self.after

    @property
    def removed(self) -> bool:
        """Whether a later round took it out."""
        return self.channels == 0


def sites(report: Report) -> list[Site]:
    """All of them, in the order of the forward pass. What does not hang together is left out."""
    widths = {width.layer: width.after for width in report.widths}
    blocks = {block.name: block for block in report.blocks if block.name}
    found = []
    for name, entry in report.operators.items():
        after = _kernel(entry.kernel_size, entry.dilation)
        if after is None:
            continue
        before = _kernel(entry.kernel_size_before, entry.dilation_before)
        axes = len(after.size)
        found.append(
            Site(
                name,
                _around(name, blocks),
                widths.get(name),
                before if before is not None and len(before.size) == axes else None,
                after,
                tuple(entry.input_size) if len(entry.input_size) == axes else (),
            )
        )
    return found


def notation(found: Sequence[Site]) -> list[tuple[str, str]]:
    """The network as it is now, in parts of (``Block`` or ``Conv``, what stands below the line)."""
    parts: list[tuple[str, list[str]]] = []
    last: BlockShape | None = None
    for site in found:
        if site.removed or (site.block is not None and site.block.removed):
            continue
        if site.block is not None and site.block is last:
            parts[-1][1].append(site.after.text)
            continue
        last = site.block
        channels = site.channels if site.block is None else site.block.width_after[-1]
        shown = [str(channels)] if channels is not None else []
        parts.append(("Conv" if site.block is None else "Block", [*shown, site.after.text]))
    return [(kind, ",".join(inside)) for kind, inside in parts]


def plain(parts: Sequence[tuple[str, str]], width: int = 100) -> list[str]:
    """The notation in lines of about ``width`` characters: ``Conv_{16,(3,1)} Block_{16,(7,1),(9,3)}``."""
    lines: list[str] = []
    for kind, inside in parts:
        word = f"{kind}_{{{inside}}}"
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _kernel(size: Sequence[int], dilation: Sequence[int]) -> Kernel | None:
    """None where there are no axes, or not as many dilations as sizes."""
    if not size or len(size) != len(dilation) or min(*size, *dilation, 1) < 1:
        return None
    return Kernel(tuple(size), tuple(dilation))


def _around(name: str, blocks: Mapping[str, BlockShape]) -> BlockShape | None:
    """The innermost block around a module; a layer that is a row of its own is none."""
    parts = name.split(".")
    outer = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((blocks[place] for place in outer if place in blocks), None)


def _short(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else "x".join(map(str, numbers))
