"""A constant order of channels: ``x[:, order]`` where ``order`` is a buffer, or a list that a module holds.

The channels stay free: what is kept of the order goes with them, and the trim counts anew what it points at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from compressor.arrays import IntArray
from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.dims import Dim, FromAttribute
from compressor.graph.recording.values import Call, Node, Value


def permuted(flow: Flow, node: Node, order: Value, axis: Axis) -> Axis:
    """Labels of an axis of ``x[..., order, ...]``; ``None`` if they cannot follow, so that the axis has to stay."""
    if axis is None or flow.is_fixed(axis):
        return None
    found = _held_by_a_module(flow, node.call, order)
    if found is None:
        return None
    source, values = found
    if not np.array_equal(np.sort(values), np.arange(len(axis))):
        return None
    taken = axis[values]
    known = flow.orders.setdefault(source, (taken, axis))
    if known[0] is not taken:
        flow.labels.unite(known[0], taken)
        flow.labels.unite(known[1], axis)
    if isinstance(source, str):
        flow.adopt(order, 0, taken)
    return taken


def _held_by_a_module(flow: Flow, call: Call | None, order: Value) -> tuple[str | FromAttribute, IntArray] | None:
    """The name of the buffer, or the attribute, that an index is, and its numbers."""
    if order.param is not None and order.producer is None and len(order.shape) == 1:
        owner, _, name = order.param.rpartition(".")
        tensor = flow.modules[owner]._buffers.get(name) if owner in flow.modules else None
        if tensor is None or tensor.is_meta or tensor.is_floating_point() or tensor.dtype is torch.bool:
            return None
        return order.param, tensor.detach().cpu().numpy().astype(np.int64)
    given: Any = call.args[1] if call is not None and call.name == "__getitem__" else None
    lists = [item for item in (given if isinstance(given, tuple) else (given,)) if isinstance(item, (list, tuple))]
    if len(lists) != 1 or not lists[0] or not all(isinstance(item, Dim) for item in lists[0]):
        return None
    first = lists[0][0].origin
    if not isinstance(first, FromAttribute):
        return None
    expected = [FromAttribute(first.module, first.name, i) for i in range(len(lists[0]))]
    if [item.origin for item in lists[0]] != expected:
        return None
    return FromAttribute(first.module, first.name), np.array([int(item) for item in lists[0]], dtype=np.int64)
