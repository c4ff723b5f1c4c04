"""Fake quantisation: every element is rounded to what its scale can hold, and zero stays zero.

Scales and zero points per channel go with their channels; so does what the module's observer has seen per channel.
"""

from __future__ import annotations

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule
from compressor.graph.rules.movement import moved

_OBSERVED = ("activation_post_process.min_val", "activation_post_process.max_val")


@rule(
    "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "fake_quantize_per_channel_affine_cachemask",
    "_fake_quantize_learnable_per_tensor_affine",
    "_fake_quantize_learnable_per_channel_affine",
    "_fused_moving_avg_obs_fq_helper",
    "_fused_moving_avg_obs_fq_helper_functional",
)
def fake_quantize(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    names = {argument.name for argument in node.overload._schema.arguments} & {"axis", "ch_axis"}
    channel = int(node.argument(names.pop())) if names else None
    observed = [flow.parameters.get(f"{node.place}.{name}") for name in _OBSERVED]  # of the module, if it is one
    node.inputs += [value for value in observed if value is not None and value not in node.inputs]
    if channel is not None:
        for vector in node.inputs[1:]:
            if vector.shape == (x.shape[channel],) and vector.shape != (1,):
                x.axes[channel] = flow.adopt(vector, 0, x.axes[channel])
    for output in node.outputs:
        if output.shape == x.shape:
            moved(x, output, list(range(len(x.shape))))
