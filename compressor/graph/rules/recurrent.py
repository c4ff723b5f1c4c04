"""LSTM, GRU and plain recurrent layers: ``h' = f(W x + U h)``, where rows of W and U are one block for every gate.

Unit i of the hidden state is row i of each block, column i of U, and what later layers read of it; its cell is its
own affair. PyTorch has one hidden size for all layers and directions of a module, so unit i goes in all of them. With a
projection (LSTM, ``h' = V f(...)``) its rows are what U and the output have, and the units of the cell stay.
"""

from __future__ import annotations

import numpy as np

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.recurrent import RecurrentLayers, recurrent_layers
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(flow: Flow, node: Node) -> None:
    x, layers = node.inputs[0], recurrent_layers(node)
    batch = layers.batch
    for d, labels in enumerate(x.axes[:-1]):
        if d != batch:
            flow.fix(labels, "a recurrent layer runs along it")
    steps = [(x.axes[d] if d == batch else None, n) for d, n in enumerate(x.shape[:-1])]
    hidden, seen = _units(flow, layers)
    above = _repeated(seen, layers.directions)
    for number, weights in enumerate(layers.weights):
        source = (x.axes[-1], [(x, len(x.shape) - 1)]) if number < layers.directions else (above, [])
        _one_pass(flow, weights, layers.projected, source, hidden, seen, steps)
    states = _states(node, x, layers)
    for state, labels in zip(states, (seen, hidden), strict=False):
        flow.join(state.axes[-1], labels, state.shape[-1], state.shape[-1])
        if batch is not None:  # (layers, batch, hidden)
            flow.join(x.axes[batch], state.axes[1], x.shape[batch], state.shape[1])
    node.outputs[0].axes[-1] = above
    for output, labels in zip(node.outputs[1:], (seen, hidden), strict=False):
        output.axes[-1] = labels
    if batch is not None:
        for place, output in enumerate(node.outputs):
            output.axes[batch if place == 0 else 1] = x.axes[batch]


def _states(node: Node, x: Value, layers: RecurrentLayers) -> list[Value]:
    """The first hidden state, and cell state of an LSTM, as they were given."""
    others = {id(x)} | {id(value) for weights in layers.weights for value in weights}
    return [value for value in node.inputs if id(value) not in others and len(value.shape) > 1]


def _units(flow: Flow, layers: RecurrentLayers) -> tuple[Axis, Axis]:
    """Labels of the units of a cell, and of what is seen of them: the same without a projection."""
    _, back, *rest = layers.weights[0]
    if layers.projected:
        rest[-1].used = True
        # PyTorch takes a state as wide as its cell for one that is not projected.
        flow.fix(rest[-1].axes[1], "a projected state stays narrower than its cell")
        return rest[-1].axes[1], rest[-1].axes[0]
    back.used = True
    return back.axes[1], back.axes[1]


def _one_pass(
    flow: Flow,
    weights: list[Value],
    projected: bool,
    source: tuple[Axis, list[tuple[Value, int]]],
    hidden: Axis,
    seen: Axis,
    steps: list[tuple[Axis, int]],
) -> None:
    """One layer in one direction. ``source`` is what it reads, and where else than in its weights that can be zero."""
    forward, back, *rest = weights
    projection = rest[-1] if projected else None
    gates = _repeated(hidden, forward.shape[0] // (back if projection is None else projection).shape[1])
    into = flow.join(source[0], forward.axes[1], forward.shape[1], forward.shape[1])
    flow.reads(into, (forward, 1), *source[1])
    flow.adopt(back, 1, seen)
    flow.reads(seen, (back, 1))
    for value in (forward, back, *(each for each in rest if each is not projection)):
        flow.adopt(value, 0, gates)
    flow.costs("recurrent", 1.0, *steps, (gates, forward.shape[0]), (into, forward.shape[1]))
    flow.costs("recurrent", 1.0, *steps, (gates, back.shape[0]), (seen, back.shape[1]))
    if projection is not None:
        flow.adopt(projection, 0, seen)
        flow.adopt(projection, 1, hidden)
        flow.reads(hidden, (projection, 1))
        flow.costs("recurrent", 1.0, *steps, (seen, projection.shape[0]), (hidden, projection.shape[1]))


def _repeated(labels: Axis, times: int) -> Axis:
    return labels if labels is None or times == 1 else np.tile(labels, times)


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(flow: Flow, node: Node) -> None:
    """One step of one layer."""
    x, state, forward, back, *rest = node.args[:6]
    states = state if isinstance(state, list) else [state]
    back.used = True
    hidden = back.axes[1]
    gates = _repeated(hidden, forward.shape[0] // back.shape[1])
    into = flow.join(x.axes[-1], forward.axes[1], x.shape[-1], forward.shape[1])
    flow.reads(into, (forward, 1), (x, len(x.shape) - 1))
    flow.reads(hidden, (back, 1), (states[0], len(states[0].shape) - 1))
    for value in (forward, back, *(each for each in rest if each is not None)):
        flow.adopt(value, 0, gates)
    outer = list(x.axes[:-1])
    for value in states:
        flow.join(value.axes[-1], hidden, value.shape[-1], value.shape[-1])
        outer = [flow.join(a, b, n, n) for a, b, n in zip(outer, value.axes[:-1], x.shape[:-1], strict=True)]
    for output in node.outputs:
        output.axes = [*outer, hidden]
    steps = list(zip(outer, x.shape[:-1], strict=True))
    flow.costs("recurrent", 1.0, *steps, (gates, forward.shape[0]), (into, forward.shape[1]))
    flow.costs("recurrent", 1.0, *steps, (gates, back.shape[0]), (hidden, back.shape[1]))


@rule("_pack_padded_sequence")
def pack(flow: Flow, node: Node) -> None:
    """Steps and examples (in whichever order) become one axis: the rows of all steps, one after the other."""
    x = node.inputs[0]
    for labels in x.axes[:2]:
        flow.fix(labels, "sequences are packed along it")
    node.outputs[0].axes[1:] = x.axes[2:]


@rule("_pad_packed_sequence")
def pad(flow: Flow, node: Node) -> None:
    """Back to steps and examples."""
    node.outputs[0].axes[2:] = node.inputs[0].axes[1:]
