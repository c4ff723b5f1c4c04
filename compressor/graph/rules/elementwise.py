"""Elementwise operators: ``y[i] = f(a[i], b[i], ...)`` with broadcasting. Labels that meet are joined.

Every operator PyTorch tags as pointwise lands here, so the list below only holds those without the tag.
"""

from __future__ import annotations

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule


@rule(
    "add",
    "sub",
    "mul",
    "div",
    "masked_fill",
    "where",
    "clone",
    "detach",
    "alias",
    "_to_copy",
    "lift_fresh",
    "dropout",
    "native_dropout",
    "bernoulli",
    "copy",
    "contiguous",
    "rrelu_with_noise",
    "log_sigmoid_forward",
    "silu",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "gelu",
    "celu",
    "elu",
    "selu",
    "prelu_elementwise",
    "softplus_backward",
    "elu_backward",
    "leaky_relu_backward",
    "mish_backward",
    "hardtanh_backward",
    "hardsigmoid_backward",
    "hardswish_backward",
)
def elementwise(flow: Flow, node: Node) -> None:
    axes = flow.broadcast(node.inputs)
    first = node.inputs[0] if len(node.inputs) == 1 else None
    for output in node.outputs[: 1 if node.op == "log_sigmoid_forward" else None]:  # the other is for backward
        output.axes = list(axes[len(axes) - len(output.shape) :])
        if first is not None and first.param is not None and node.op in ("detach", "alias", "clone", "_to_copy"):
            output.param, output.param_axes = first.param, first.param_axes


@rule("_prelu_kernel")
def prelu(flow: Flow, node: Node) -> None:
    """``_prelu_kernel(x, w)``: the slope is already shaped to broadcast against ``x``."""
    elementwise(flow, node)


@rule("mse_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "binary_cross_entropy")
def loss(flow: Flow, node: Node) -> None:
    """One number per element; or their mean or sum, to which every element has to go on contributing."""
    if node.outputs[0].shape == node.inputs[0].shape:
        elementwise(flow, node)
    else:
        for value in node.inputs:
            flow.fix_value(value, "a loss over it")
