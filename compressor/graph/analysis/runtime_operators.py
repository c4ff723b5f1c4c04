"""From the nodes of a recording to ``Operator`` records, folded as inference runtimes fold them.

A convolution or linear layer takes in what follows it as long as nobody else reads what is between: one normalisation,
activations, one addition of another tensor of the same shape. Views and dropout cost nothing. Arithmetic on weights
alone (weight normalisation, relative position tables) is done once, not per run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from compressor.graph.analysis.units import Analysis
from compressor.graph.operators import Extent, Operator
from compressor.graph.recording.recurrent import recurrent_layers
from compressor.graph.recording.values import Node, Value

_FREE = {"view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "contiguous", "clone", "alias",
         "detach", "_to_copy", "dropout", "native_dropout", "t", "expand", "empty", "split", "split_with_sizes",
         "chunk", "slice", "select", "unbind", "narrow", "lift_fresh", "empty_like", "zeros", "arange",
         "full"}  # fmt: skip
_MAKERS = {"new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like"}
_ACTIVATIONS = {"relu", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu", "tanh", "leaky_relu", "elu", "mish",
                "softplus", "relu6"}  # fmt: skip
_POOLS = {"max_pool2d_with_indices": "max_pool2d", "max_pool2d": "max_pool2d", "avg_pool2d": "avg_pool2d"}
_GLOBAL = {"mean", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "amax"}
_NORMS = {
    "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "cudnn_batch_norm": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_SUMS = {"add": "add", "sub": "add", "rsub": "add", "mul": "mul", "div": "mul", "maximum": "add", "minimum": "add"}
_MOVES = {"permute", "transpose", "roll", "flip", "index", "repeat", "constant_pad_nd", "pixel_shuffle", "im2col"}
_TAKES_ALL = ("conv", "linear")


def collect_operators(
    analysis: Analysis,
    nodes: list[Node],
    outputs: list[Value],
    constants: set[int],
    gates: Mapping[int, tuple[int, ...]],
) -> list[Operator]:
    """The operators of one recording, in order. ``constants`` are the storages of parameters and buffers."""
    return _Collector(analysis, nodes, outputs, constants, gates).run()


class _Collector:
    def __init__(
        self,
        analysis: Analysis,
        nodes: list[Node],
        outputs: list[Value],
        constants: set[int],
        gates: Mapping[int, tuple[int, ...]],
    ) -> None:
        self.analysis, self.nodes, self.constants, self.gates = analysis, nodes, constants, gates
        self.found: list[Operator] = []
        self.made_by: dict[int, Operator] = {}
        self.source: dict[int, int] = {}  # value, through views, to the value it shows
        self.readers: dict[int, int] = {}
        self.static: set[int] = set()
        self.nodes_reading: dict[int, list[Node]] = {}
        for node in nodes:
            for value in node.inputs:
                self.nodes_reading.setdefault(value.index, []).append(node)
            dynamic = node.op not in _MAKERS and any(not self._static(value) for value in node.inputs)
            for value in node.outputs:
                if not dynamic:
                    self.static.add(value.index)
                if node.op.rstrip("_") in _FREE and node.inputs:
                    self.source[value.index] = self._root(node.inputs[0])
            if node.op.rstrip("_") not in _FREE:
                for value in node.inputs:
                    root = self._root(value)
                    self.readers[root] = self.readers.get(root, 0) + 1
        for value in outputs:
            root = self._root(value)
            self.readers[root] = self.readers.get(root, 0) + 1

    def run(self) -> list[Operator]:
        for node in self.nodes:
            op = node.op.rstrip("_")
            if op in _FREE or not node.outputs or node.outputs[0].index in self.static or not node.outputs[0].shape:
                continue
            dynamic = [value for value in node.inputs if not self._static(value)]
            if not dynamic or (op in _MOVES and self._feeds_products(node)):
                self._pass(node)
                continue
            try:
                operator = self._build(op, node, dynamic)
            except (IndexError, ValueError, KeyError, TypeError, AttributeError):
                operator = self._generic("other", node)  # an unusual form: still costs its traffic
            if operator is not None:
                if node.outputs[0].index not in self.made_by:  # else it was folded into one we have
                    operator.node = node.index
                    self.found.append(operator)
                for value in node.outputs:
                    self.made_by[value.index] = operator
        return self.found

    # ---- one node

    def _build(self, op: str, node: Node, dynamic: list[Value]) -> Operator | None:
        if op in ("convolution", "_convolution"):
            return self._convolution(node)
        if op in ("addmm", "mm", "linear", "bmm", "baddbmm", "matmul"):
            return self._product(op, node)
        if op == "scaled_dot_product_attention":
            return self._attention(node)
        if op in _RECURRENT:
            return self._recurrent(op, node)
        kind = _activation(op, node)
        if kind is not None:
            return self._fold(node, dynamic, kind) or self._generic(kind, node)
        if op in _NORMS:
            if _NORMS[op] == "batch_norm" and self._fold(node, dynamic, "norm"):
                return None
            operator = self._generic(_NORMS[op], node)
            if operator.kind == "group_norm":
                operator.attributes["groups"] = int(node.args[6])
            return operator
        if op in _POOLS:
            size = tuple(node.args[1])
            given = node.args[2] if len(node.args) > 2 else ()
            padding = tuple(node.args[3]) if len(node.args) > 3 else (0,) * len(size)
            operator = self._generic(_POOLS[op], node, from_input=True)
            operator.kernel, operator.stride, operator.padding = size, tuple(given) or size, padding
            return operator
        if op in _GLOBAL and math.prod(node.outputs[0].shape) < math.prod(node.inputs[0].shape):
            return self._generic("global_pool", node, from_input=True)
        if op == "cat":
            if len(dynamic) == 1 and dynamic[0].shape == node.outputs[0].shape:
                self._pass(node)
                return None
            return self._generic("concat", node)
        if op in ("_softmax", "softmax"):
            return self._generic("softmax", node)
        if op.startswith("upsample_"):
            operator = self._generic("resize", node, from_input=True, mode=op.removeprefix("upsample_")[:-2])
            operator.attributes["scale"] = round(node.outputs[0].shape[-1] / node.inputs[0].shape[-1], 4)
            return operator
        if op in _SUMS:
            return self._sum(_SUMS[op], node, dynamic)
        return self._generic("move" if op in _MOVES else "other", node)

    def _fold(self, node: Node, dynamic: list[Value], name: str) -> Operator | None:
        """Fold ``node`` into the operator that made its input; ``None`` if it cannot be."""
        for value in sorted(dynamic, key=lambda value: -self._root(value)):
            operator = self._owner(value)
            if operator is None:
                continue
            takes_all = operator.kind.startswith(_TAKES_ALL)
            if name in operator.fused and name in ("norm", "add"):
                continue
            if not takes_all and (name in ("norm", "add") or operator.kind not in ("batch_norm", "add", "layer_norm")):
                continue
            operator.fused = (*operator.fused, name)
            for output in node.outputs[:1]:
                self.made_by[output.index] = operator
            return operator
        return None

    def _owner(self, value: Value) -> Operator | None:
        """The operator that made a value nobody else reads."""
        root = self._root(value)
        return self.made_by.get(root) if self.readers.get(root, 0) == 1 else None

    def _pass(self, node: Node) -> None:
        """Nothing to run: whoever made the input made the output."""
        if node.inputs and (operator := self.made_by.get(self._root(node.inputs[0]))) is not None:
            for value in node.outputs:
                self.made_by[value.index] = operator
                self.readers.setdefault(value.index, 2)

    def _sum(self, kind: str, node: Node, dynamic: list[Value]) -> Operator | None:
        y = node.outputs[0]
        if len(dynamic) < 2:
            return self._generic(kind, node, operand="constant")
        if any(math.prod(value.shape) < math.prod(y.shape) for value in dynamic):
            return self._generic("scale", node)
        if kind == "add" and self._fold(node, dynamic, "add"):
            return None
        return self._generic(kind, node)

    def _convolution(self, node: Node) -> Operator:
        x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
        transposed, groups = bool(node.args[6]), int(node.args[8])
        n = len(w.shape) - 2
        channel = len(x.shape) - n - 1
        depthwise = groups > 1 and groups == x.shape[channel] == y.shape[channel]
        into, out = self._extent((x, channel)), self._extent((y, channel))
        copies = self._runs(node)
        if groups > 1 and not depthwise:
            # What one group has, times how many groups there are: lengths over the group count stay what they are.
            into, out, copies = self._grouped(w, groups, transposed, copies)
        operator = Operator(
            node.place,
            f"conv_transpose{n}d" if transposed else f"conv{n}d",
            into,
            out,
            copies,
            kernel=tuple(w.shape[2:]),
            stride=tuple(int(s) for s in node.args[3]),
            padding=tuple(int(s) for s in node.args[4]),
            dilation=tuple(int(s) for s in node.args[5]),
            groups=1 if depthwise else groups,
            depthwise=depthwise,
            spatial=tuple(x.shape[channel + 1 :]),
            out_positions=math.prod(y.shape[channel + 1 :]),
            one_axis=depthwise,
            weights=True,
        )
        self._crop(operator, w)
        return operator

    def _crop(self, operator: Operator, w: Value) -> None:
        """Note what of the kernel may go."""
        operator.taps = self._extent(*((w, d) for d in range(2, len(w.shape))))
        if operator.taps.axes:
            axes = [self.analysis.axis(labels) for labels in w.axes[2:]]
            gone = [0 if axis is None else int((axis.factors[:, 0] >= 0).sum()) for axis in axes]
            operator.cropped = replace(
                operator,
                kernel=tuple(k - n for k, n in zip(operator.kernel, gone, strict=True)),
                padding=tuple(
                    max(0, p - d * n // 2) for p, d, n in zip(operator.padding, operator.dilation, gone, strict=True)
                ),
            )

    def _grouped(self, w: Value, groups: int, transposed: bool, copies: Extent) -> tuple[Extent, Extent, Extent]:
        # A weight's axis 1 is per group; along axis 0 the groups lie one after the other.
        inner, whole = self._extent((w, 1)), self._extent((w, 0))
        fixed = Extent(w.shape[0] // groups)
        share = Extent(whole.coefficient / whole.full, whole.axes, copies.gates)
        return (fixed, inner, share) if transposed else (inner, fixed, share)

    def _product(self, op: str, node: Node) -> Operator | None:
        position = 1 if op in ("addmm", "baddbmm") else 0
        a, b = node.args[position], node.args[position + 1]
        y = node.outputs[0]
        if op == "linear" or self._static(b) or self._static(a):
            if not self._static(b) and op != "linear":
                a, b = b, a
            return Operator(
                node.place,
                "linear",
                self._extent((a, len(a.shape) - 1)),
                self._extent((y, len(y.shape) - 1)),
                Extent(gates=self._gates(node)),
                spatial=(math.prod(a.shape[:-1]),),
                out_positions=math.prod(y.shape[:-1]),
                one_axis=False,
                weights=True,
                attributes={} if op == "addmm" or len(node.inputs) > 2 else {"bias": False},
            )
        last = len(a.shape) - 1
        rows = self._extent(*((a, d) for d in range(last)))
        full = rows.full
        return Operator(
            node.place,
            "matmul",
            self._extent((a, last)),
            self._extent((y, len(y.shape) - 1)),
            Extent(rows.coefficient / full, rows.axes, self._gates(node)),
            spatial=(math.prod(a.shape[:-2]), a.shape[-2]),
            out_positions=math.prod(y.shape[:-1]),
            one_axis=False,
        )

    def _attention(self, node: Node) -> Operator:
        q, k, v = node.inputs[:3]
        lead = self._extent(*((q, d) for d in range(len(q.shape) - 2)))
        heads = lead.full
        return Operator(
            node.place,
            "attention",
            self._extent((q, len(q.shape) - 1)),
            self._extent((v, len(v.shape) - 1)),
            Extent(lead.coefficient / heads, lead.axes, self._gates(node)),
            spatial=(q.shape[-2], k.shape[-2]),
            out_positions=heads * q.shape[-2],
            one_axis=False,
            attributes={"heads": heads},
        )

    def _recurrent(self, op: str, node: Node) -> Operator:
        """The first layer; the layers above it, which are alike, are noted as one operator that runs as often."""
        x, layers = node.inputs[0], recurrent_layers(node)
        if layers.projected:  # no runtime's operator has it
            return self._generic("other", node)
        steps = math.prod(x.shape[:-1])
        first, *above = layers.weights[:: layers.directions]

        def operator(into: Extent, copies: float) -> Operator:
            return Operator(
                node.place,
                "recurrent",
                into,
                self._extent((first[1], 1)),
                Extent(copies, gates=self._gates(node)),
                spatial=(steps,),
                out_positions=steps * layers.directions,
                one_axis=False,
                attributes={"cell": op, "directions": layers.directions},
            )

        if above:
            found = operator(self._extent((above[0][0], 1)), len(above))
            found.node = node.index
            self.found.append(found)
        return operator(self._extent((x, len(x.shape) - 1)), 1)

    def _generic(
        self, kind: str, node: Node, *, from_input: bool = False, **attributes: str | int | float | bool
    ) -> Operator:
        """An operator whose time follows the elements of one tensor."""
        y = node.outputs[0]
        x = next((v for v in node.inputs if not self._static(v)), y) if from_input else y
        axes = [self.analysis.axis(labels) for labels in x.axes]
        varying = [d for d, axis in enumerate(axes) if axis is not None]
        if not varying:
            varying = [1 if len(x.shape) >= 3 and kind not in ("layer_norm", "softmax") else len(x.shape) - 1]
        extent = self._extent(*((x, d) for d in varying))
        spatial = tuple(n for d, n in enumerate(x.shape) if d not in varying and not (d == 0 and n == 1))
        if varying[-1] == len(x.shape) - 1 and len(x.shape) > 1:
            attributes["last"] = True
        per_channel = math.prod(y.shape) // max(1, extent.full)
        copies = self._runs(node)
        return Operator(
            node.place, kind, extent, extent, copies, spatial=spatial, out_positions=per_channel, attributes=attributes
        )

    # ---- helpers

    def _static(self, value: Any) -> bool:
        return isinstance(value, Value) and (
            value.param is not None or value.index in self.static or value.storage in self.constants
        )

    def _root(self, value: Value) -> int:
        return self.source.get(value.index, value.index)

    def _feeds_products(self, node: Node) -> bool:
        """Whether a change of layout serves matrix products alone, which take their operands in any layout."""
        pending, seen = list(node.outputs), 0
        while pending:
            for reader in self.nodes_reading.get(pending.pop().index, []):
                op = reader.op.rstrip("_")
                if op in _FREE:
                    pending += reader.outputs
                elif op not in ("scaled_dot_product_attention", "bmm", "baddbmm", "matmul", "mm", "addmm", "linear"):
                    return False
                else:
                    seen += 1
        return seen > 0

    def _runs(self, node: Node) -> Extent:
        """How often an operator runs: not without its block, and less of it at a lower resolution."""
        share, spatial = self.analysis.spatial(node.index, node.outputs[0])
        return Extent(share, spatial, self._gates(node))

    def _gates(self, node: Node) -> tuple[int, ...]:
        return self.gates.get(node.index, ())

    def _extent(self, *places: tuple[Value, int]) -> Extent:
        coefficient, axes = 1.0, []
        for value, d in places:
            axis = self.analysis.axis(value.axes[d])
            if axis is None:
                coefficient *= value.shape[d]
            else:
                axes.append(axis)
        return Extent(coefficient, tuple(axes))


def _activation(op: str, node: Node) -> str | None:
    if op == "hardtanh" or op == "clamp":
        bounds = tuple(node.args[1:3])
        return "relu6" if bounds == (0, 6) or bounds == (0.0, 6.0) else "clip"
    if op in ("clamp_min",):
        return "relu"
    return op if op in _ACTIVATIONS else None
