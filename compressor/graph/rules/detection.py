"""torchvision's own operators: deformable convolution, and pooling over boxes."""

from __future__ import annotations

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule
from compressor.graph.rules.convolution import grouped, groups_of


@rule("deform_conv2d")
def deform_conv(flow: Flow, node: Node) -> None:
    """A convolution that looks where ``offset`` (and how strongly ``mask``) says, for every group of offsets.

    Torchvision takes both numbers of groups from shapes. Offsets are ``(groups of offsets, 2 * kh * kw)``, y and x per
    place of the kernel, masks ``(groups of offsets, kh * kw)``; a group of offsets moves C / groups channels.
    """
    x, w, offset, mask, bias = node.args[:5]
    groups, moved, masked = int(node.argument("groups")), int(node.argument("offset_groups")), node.argument("use_mask")
    y = node.outputs[0]
    into, c_in, places = x.axes[1], x.shape[1], w.shape[2] * w.shape[3]
    if moved > 1:
        rows, _ = groups_of(flow, into, moved, c_in)
        for value, each in ((offset, 2 * places), *([(mask, places)] if masked else [])):
            own, _ = flow.split(value.axes[1], moved, each, constant=(False, True))
            flow.join(own, rows, moved, moved)
    else:
        flow.fix(offset.axes[1], "offsets of a deformable convolution")
        flow.fix(mask.axes[1] if masked else None, "masks of a deformable convolution")
    if groups == 1:
        flow.reads(flow.adopt(w, 1, into), (w, 1), (x, 1))
    else:
        rows, columns = groups_of(flow, into, groups, c_in)
        if type(flow.owner(node)).__name__ == "DeformConv2d":
            flow.mends("groups", rows)
        grouped(flow, w, rows, columns, groups)
    flow.adopt(bias, 0, w.axes[0])
    for value in (x, w, offset, *([mask] if masked else [])):
        for axis in value.axes[2:]:
            flow.fix(axis, "a convolution runs along it")
    if type(flow.owner(node)).__name__ == "DeformConv2d":
        flow.mends("in_channels", into)
        flow.mends("out_channels", w.axes[0])
    batch = flow.join(x.axes[0], offset.axes[0], x.shape[0], offset.shape[0])
    y.axes = [batch, w.axes[0], None, None]
    spatial = [(None, n) for n in y.shape[2:]]
    flow.costs("conv", 1.0, (batch, y.shape[0]), *spatial, *zip(w.axes, w.shape, strict=True))


@rule("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
def over_boxes(flow: Flow, node: Node) -> None:
    """``(B, C, H, W)`` to ``(boxes, C, h, w)``. The ``ps`` kinds have a channel for each place: ``(C, h, w)``."""
    x, boxes, y = node.inputs[0], node.inputs[1], node.outputs[0]
    for axis in (x.axes[0], *x.axes[2:], boxes.axes[1]):
        flow.fix(axis, f"{node.op} over it")
    channels, places = x.axes[1], y.shape[2] * y.shape[3]
    if node.op.startswith("ps_"):
        channels, _ = flow.split(channels, y.shape[1], places, constant=(False, True))
    for output in node.outputs:
        output.axes = [boxes.axes[0], channels, None, None] if len(output.shape) == 4 else [None] * len(output.shape)
