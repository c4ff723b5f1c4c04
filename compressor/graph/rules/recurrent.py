"""LSTM, GRU and plain recurrent layers stay whole; what feeds them may be trimmed.

``h' = f(W x + U h)``: the first layer's W (one per direction) reads the last axis of x. Everything else is fixed.
"""

from __future__ import annotations

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    weights = next(arg for arg in node.args[2:] if isinstance(arg, list) and len(arg) > 1)
    layers, bidirectional = int(node.args[-5]), bool(node.args[-2])
    directions = 2 if bidirectional else 1
    readers: list[Value] = [weights[d * len(weights) // (layers * directions)] for d in range(directions)]
    axis = x.axes[-1]
    packed = not isinstance(node.args[1], list) and len(x.shape) == 2 and len(node.args[1].shape) == 1
    batch = None if packed or len(x.shape) < 3 else 0 if node.args[-1] is True else 1
    for value in node.inputs[1:]:
        for d, labels in enumerate(value.axes):
            if d == 1 and batch is not None and len(value.shape) == 3:  # states: (layers, batch, hidden)
                flow.join(x.axes[batch], labels, x.shape[batch], value.shape[1])
            elif not (d == 1 and any(value is w for w in readers)):
                flow.fix(labels, "a recurrent layer stays whole")
    for d, axis_along in enumerate(x.axes[:-1]):
        if d != batch:
            flow.fix(axis_along, "a recurrent layer runs along it")
    for w in readers:
        axis = flow.join(axis, w.axes[1], x.shape[-1], w.shape[1])
        flow.reads(axis, (w, 1), (x, len(x.shape) - 1))
        steps = 1.0
        for n in x.shape[:-1]:
            steps *= n
        flow.costs("recurrent", steps, (None, w.shape[0]), (axis, w.shape[1]))
    inner = [w for w in weights if len(w.shape) == 2 and not any(w is r for r in readers)]
    flow.costs("recurrent", sum(float(w.shape[0] * w.shape[1]) for w in inner) * float(x.shape[0] * x.shape[1]))
    if batch is not None:
        for place, output in enumerate(node.outputs):
            output.axes[batch if place == 0 else 1] = x.axes[batch]


@rule("rnn_tanh_cell", "rnn_relu_cell")
def cell(flow: Flow, node: Node) -> None:
    """One step, ``h' = f(W x + U h)``: likewise."""
    x, hidden, w = node.args[:3]
    for value in node.inputs[1:]:
        for d, labels in enumerate(value.axes):
            if not (value is w and d == 1) and not (value is hidden and d < len(hidden.shape) - 1):
                flow.fix(labels, "a recurrent layer stays whole")
    axis = flow.join(x.axes[-1], w.axes[1], x.shape[-1], w.shape[1])
    flow.reads(axis, (w, 1), (x, len(x.shape) - 1))
    batch = [flow.join(a, b, n, n) for a, b, n in zip(x.axes[:-1], hidden.axes[:-1], x.shape[:-1], strict=True)]
    node.outputs[0].axes = [*batch, None]
    outer = list(zip(batch, x.shape[:-1], strict=True))
    flow.costs("recurrent", 1.0, *outer, (None, w.shape[0]), (axis, w.shape[1]))
    flow.costs("recurrent", 1.0, *outer, (None, w.shape[0]), (None, w.shape[0]))
