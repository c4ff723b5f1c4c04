"""What a runtime runs for one forward pass: operators with what is folded into them, and how many channels they have.

Plain data, like everything in a ``Graph``. ``compressor.graph.analysis.runtime_operators`` makes it; costs that measure
turn it into the signatures of a latency table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from compressor.graph.axis import Axis


@dataclass(eq=False)
class Extent:
    """A number that may change: ``coefficient`` times the lengths of ``axes`` (times the gates, where it has some)."""

    coefficient: float = 1.0
    axes: tuple[Axis, ...] = ()
    gates: tuple[int, ...] = ()

    @property
    def full(self) -> int:
        """Its value with everything kept."""
        value = self.coefficient
        for axis in self.axes:
            value *= len(axis)
        return round(value)


@dataclass(eq=False)
class Operator:
    """One operator as a runtime runs it, at batch 1.

    Attributes:
        place: module whose forward called it.
        kind: "conv2d", "conv_transpose2d", "linear", "matmul", "attention", "recurrent", "batch_norm", "layer_norm",
            "group_norm", "max_pool2d", "avg_pool2d", "global_pool", "softmax", "concat", "resize", "add", "mul",
            "scale" (a factor per channel), or the name of an activation.
        channels_in, channels_out: channel counts; per group for a grouped convolution.
        copies: how often it runs: the groups of a grouped convolution, the heads of an attention; its gates are the
            blocks that the operator goes with.
        kernel, stride, padding, dilation: one number per spatial axis.
        groups: groups of a grouped convolution when everything is kept.
        spatial: input size without batch and channels; (tokens,) for sequences, (queries, keys) for attention.
        out_positions: elements of the output per channel.
        one_axis: whether channels out are channels in.
        fused: what runtimes fold in, in order: "norm", "add", activations.
        attributes: whatever else decides the time.
        weights: whether it reads weights of its own, in proportion to channels in times out.
        taps: entries of the kernel, where some may go.
        cropped: the same operator with all of them gone; ``None`` if none may.
        variants: what it is under each alternative of a choice, in their order; empty if no choice changes it. They
            have no variants of their own, and taps only where the network has them.
        variant_units: the units of these alternatives.
        node: the operator call of the trace that it is.
    """

    place: str
    kind: str
    channels_in: Extent
    channels_out: Extent
    copies: Extent = field(default_factory=Extent)
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    depthwise: bool = False
    spatial: tuple[int, ...] = ()
    out_positions: int = 1
    fused: tuple[str, ...] = ()
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict)
    one_axis: bool = True
    weights: bool = False
    taps: Extent = field(default_factory=Extent)
    cropped: Operator | None = None
    variants: tuple[Operator, ...] = ()
    variant_units: tuple[int, ...] = ()
    node: int = -1
