"""Kernels that may be cropped: odd extents of PyTorch's own convolutions, from the outside inwards.

A kernel of k taps, cropped by r rings to k - 2r taps around the same centre, computes what the whole kernel with zeros
in these rings does, at every stride and dilation, if the padding shrinks by ``dilation * r`` with it. So a ring may go
if there is padding to take back. The two taps of a ring carry one label; the taps that must stay are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from compressor.graph.labels.flow import Flow
from compressor.graph.labels.notes import Derived
from compressor.graph.recording.dims import FromAttribute
from compressor.graph.recording.values import Node, Value

_PLAIN = {c: (c.forward, c._conv_forward) for c in (nn.Conv1d, nn.Conv2d, nn.Conv3d)}


@dataclass(frozen=True)
class Crop:
    """What cropping means for one axis of one convolution."""

    taps: int
    removable: int
    padding: int
    dilation: int


def crops(module: nn.Module) -> tuple[list[Crop | None], str]:
    """Per kernel axis what may be cropped, ``None`` for nothing; and why it is none, if an extent above 1 stays.

    A class with a forward of its own says by ``computes_convolution`` that it is none but a convolution.
    """
    if not isinstance(module, nn.modules.conv._ConvNd) or max(module.kernel_size) == 1:
        return [], ""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return [], "a transposed convolution"
    kind = next((c for c in _PLAIN if isinstance(module, c)), None)
    own = kind is None or (type(module).forward, type(module)._conv_forward) != _PLAIN[kind]
    if own and not getattr(module, "computes_convolution", False):
        return [], "a convolution with a forward of its own"
    found: list[Crop | None] = []
    reasons: list[str] = []
    for i, (k, d) in enumerate(zip(module.kernel_size, module.dilation, strict=True)):
        total = d * (k - 1) // 2
        padding = module.padding if isinstance(module.padding, str) else module.padding[i]
        amount = total if padding == "same" else 0 if isinstance(padding, str) else padding
        removable = min(amount // d, k // 2)
        if k % 2 == 0:
            reasons.append(f"an even kernel ({k})")
        elif k > 1 and not removable:
            reasons.append(f"a kernel of {k} without padding")
        found.append(Crop(k, removable, amount, d) if k % 2 and removable else None)
    return found, " and ".join(dict.fromkeys(reasons))


def label_kernels(flow: Flow, name: str, value: Value, names: tuple[str, ...]) -> None:
    """Give the kernel axes of a convolution's weight labels, and note the attributes that change with them."""
    place, _, attribute = name.rpartition(".")
    module = flow.modules.get(place)
    if attribute != "weight" or module is None:
        return
    found, reason = crops(module)
    if len(names) > 1 and any(found):
        found, reason = [], "a weight shared with another convolution"
    if reason:
        flow.whole_kernels[place] = reason
    for i, crop in enumerate(found):
        if crop is not None:
            value.axes[2 + i] = _label(flow, module, place, i, crop)
            flow.kernels.add((name, 2 + i))


def _label(flow: Flow, module: nn.Module, place: str, i: int, crop: Crop) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    centre = crop.taps // 2
    rings = np.concatenate(
        [
            flow.labels.fixed(centre + 1 - crop.removable, flow.reason("the centre of a kernel, or nothing to crop")),
            flow.labels.fresh(crop.removable),
        ]
    )
    labels: np.ndarray[tuple[int], np.dtype[np.int64]] = rings[np.abs(np.arange(crop.taps) - centre)]
    flow.attributes[FromAttribute(place, "kernel_size", i)] = labels
    # padding - dilation * (taps - kept) / 2
    offset, factor = crop.padding - crop.dilation * crop.taps / 2, crop.dilation / 2
    if not isinstance(module.padding, str):
        flow.derived.append(Derived(place, "padding", i, labels, offset, factor))
    if module.padding_mode != "zeros":
        n = len(module.kernel_size)  # type: ignore[arg-type]
        for side in (0, 1):
            index = 2 * (n - 1 - i) + side
            flow.derived.append(Derived(place, "_reversed_padding_repeated_twice", index, labels, offset, factor))
    return labels


def read_kernel(flow: Flow, node: Node, w: Value) -> None:
    """The convolution in hand sums over its kernel; one that is not the module's own weight stays whole."""
    own = w.param is not None and w.producer is None and w.param == f"{node.place}.weight".lstrip(".")
    for d in range(2, len(w.shape)):
        if own:
            flow.reads(w.axes[d], (w, d))
        else:
            flow.fix(w.axes[d], "kernel extent")
