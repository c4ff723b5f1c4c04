"""Normalisation. Batch norm is per channel; layer, group and RMS norm take statistics across channels, which the masked
model must take over what is kept (``masks/sites``), as the trimmed model will.
"""

from __future__ import annotations

from torch import nn

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "batch_norm",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "_batch_norm_impl_index",
)
def batch_norm(flow: Flow, node: Node) -> None:
    """``y[c] = (x[c] - mean[c]) / std[c] * w[c] + b[c]``: all vectors are joined with axis 1.

    Taken in evaluation, the statistics are those of the batch where a weight is standardised this way.
    """
    x = node.inputs[0]
    labelled = [d for d, other in enumerate(x.axes) if d != 1 and not flow.is_fixed(other)]
    if labelled and any(arg is True for arg in node.args):
        if len(labelled) == 1 and flow.call("batch_norm") is not None:
            flow.adjusts("batch_norm", x.axes[labelled[0]], axis=labelled[0] - len(x.shape))
        else:
            for d in labelled:
                flow.fix(x.axes[d], "normalisation that cannot be taken over part of it")
    y = node.outputs[0]
    axis = x.axes[1]
    for vector in node.inputs[1:]:
        axis = flow.adopt(vector, 0, axis)
    y.axes = [x.axes[0], axis, *x.axes[2:]]
    for extra in node.outputs[1:]:
        if extra.shape == (x.shape[1],):
            extra.axes = [axis]


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(flow: Flow, node: Node) -> None:
    """Statistics over the last ``len(normalized_shape)`` axes, one of which may have channels to lose."""
    x, y = node.inputs[0], node.outputs[0]
    shape = node.args[1] if len(node.args) > 1 else node.kwargs["normalized_shape"]
    first = len(x.shape) - len(shape)
    axes = list(x.axes)
    for affine in node.inputs[1:]:
        for i in range(len(shape)):
            axes[first + i] = flow.adopt(affine, i, axes[first + i])
    y.axes = axes
    labelled = [i for i, axis in enumerate(axes[first:]) if not flow.is_fixed(axis)]
    if not labelled:
        return
    call = flow.call("layer_norm", "rms_norm")
    if call is None or len(labelled) > 1:
        for axis in axes[first:]:
            flow.fix(axis, "normalisation that cannot be taken over part of the channels")
        return
    (i,) = labelled
    axis = axes[first + i]
    if isinstance(flow.owner(node), (nn.LayerNorm, nn.RMSNorm)):
        flow.mends("normalized_shape", axis, i)
    else:
        given = call.args[1] if len(call.args) > 1 else call.kwargs["normalized_shape"]
        flow.bind(given if isinstance(given, int) else given[i], axis, "normalized_shape")
    flow.adjusts(call.name, axis, axis=i - len(shape), axes=len(shape))


@rule("native_group_norm")
def group_norm(flow: Flow, node: Node) -> None:
    """Channels are ``(G, C/G)``; statistics over C/G and space. All groups keep equally many."""
    x, y = node.inputs[0], node.outputs[0]
    groups, channels = int(node.args[6]), x.shape[1]
    axis = x.axes[1]
    for affine in node.inputs[1:]:
        axis = flow.adopt(affine, 0, axis)
    y.axes = [x.axes[0], axis, *x.axes[2:]]
    for extra in node.outputs[1:]:
        extra.axes = [None] * len(extra.shape)
    if axis is None:
        return
    if flow.call("group_norm") is None:
        flow.fix(axis, "normalisation that cannot be taken over part of the channels")
        return
    rows, _ = flow.split(axis, groups, channels // groups)
    if rows is None and groups > 1:
        flow.fix(axis, "group norm over channels that repeat")
    elif isinstance(flow.owner(node), nn.GroupNorm):
        flow.mends("num_groups", rows)
    else:
        call = node.call
        given = groups if call is None else call.args[1] if len(call.args) > 1 else call.kwargs["num_groups"]
        flow.bind(given, rows, "num_groups")
    flow.adjusts("group_norm", axis, groups=groups)


@rule("_weight_norm_interface", "_weight_norm")
def weight_norm(flow: Flow, node: Node) -> None:
    """``v * g / ||v||``, the norm over every axis but ``dim``: what is removed is zero in v, which no sum notices."""
    v, g = node.inputs[0], node.inputs[1]
    dim = int(node.args[2]) if len(node.args) > 2 else 0
    y = node.outputs[0]
    y.axes = list(v.axes)
    y.axes[dim] = flow.join(v.axes[dim], g.axes[dim], v.shape[dim], g.shape[dim])
    for i, axis in enumerate(v.axes):
        if i != dim:
            flow.reads(axis, (v, i))


@rule("local_response_norm")
def local_response_norm(flow: Flow, node: Node) -> None:
    """Each channel over the squares of its neighbours: those that are kept, side by side."""
    x = node.inputs[0]
    node.outputs[0].axes = list(x.axes)
    flow.adjusts("side_by_side", x.axes[1], axis=1 - len(x.shape))
