"""A made-up operator and its rule, as another package would add them: ``toys::twice`` doubles every number."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node


@torch.library.custom_op("toys::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """Two times ``x``."""
    return 2 * x


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def rule(flow: Flow, node: Node) -> None:
    """What goes in comes out: every axis is the input's."""
    node.outputs[0].axes = list(node.inputs[0].axes)
