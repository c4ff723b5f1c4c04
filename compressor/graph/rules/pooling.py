"""Pooling, resizing and other operators on the trailing spatial axes: batch and channels pass through."""

from __future__ import annotations

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule

_POOLS = [
    f"{kind}{d}d{suffix}"
    for d in (1, 2, 3)
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool")
    for suffix in ("", "_with_indices")
]
_RESIZES = [
    *(f"upsample_{mode}" for mode in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d")),
    *(f"upsample_{mode}" for mode in ("trilinear3d", "bicubic2d")),
    *(f"_upsample_{mode}" for mode in ("nearest_exact1d", "nearest_exact2d", "nearest_exact3d")),
    *(f"_upsample_{mode}" for mode in ("bilinear2d_aa", "bicubic2d_aa")),
]
_PADS = [f"{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3)]
_SPATIAL = {"1d": 1, "2d": 2, "3d": 3}


@rule(*_POOLS, *_RESIZES, *_PADS, "fractional_max_pool2d", "grid_sampler_2d", "grid_sampler_3d")
def spatial(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    dims = next(n for tag, n in _SPATIAL.items() if tag in node.op)
    for axis in x.axes[len(x.shape) - dims :]:
        flow.fix(axis, "pooling or resizing along it")
    for extra in node.inputs[1:]:
        if node.op.startswith("fractional"):  # of each channel
            flow.join(x.axes[-dims - 1], extra.axes[1], x.shape[-dims - 1], extra.shape[1])
        else:
            flow.fix_value(extra, "sampling positions")
    for output in node.outputs:
        kept = x.axes[: len(x.shape) - dims]
        output.axes = [*kept, *[None] * (len(output.shape) - len(kept))]
