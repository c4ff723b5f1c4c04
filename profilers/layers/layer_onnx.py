"""One operator of a latency table as a small ONNX file: what ``lut.Signature`` describes, for given channels.

The operator is written as torch's exporter writes it, with everything that is folded into it, so that the runtime folds
and chooses kernels as it does in a network. On request it stands between *anchors*, 1x1 convolutions with few channels
at the other end: next to a convolution runtimes keep tensors in their own blocked layout, as inside a network.
Anchors carry ``ANCHOR`` in the names of their nodes and results, so that their time can be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lut import Signature
from profilers.errors import ProfilerUsageError

ANCHOR = "anchor"
_OPSET = 20
_IR_VERSION = 9
_ANCHOR_CHANNELS = 8
_SIMPLE = {"relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid", "tanh": "Tanh", "gelu": "Gelu", "elu": "Elu",
           "leaky_relu": "LeakyRelu", "softplus": "Softplus", "mish": "Mish"}  # fmt: skip

_CELLS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "lstm": ("LSTM", 4, {}),
    "gru": ("GRU", 3, {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", 1, {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", 1, {"activations": ["Relu"]}),
}


def layer_onnx(signature: Signature, channels_in: int, channels_out: int, *, batch: int = 1, anchors: bool) -> bytes:
    """The file. Weights are random.

    Args:
        anchors: whether to put anchors around operators on images.

    Raises:
        ProfilerUsageError: an operator that is not known here.
    """
    return _Writer(signature, batch, anchors).write(channels_in, channels_out)


class _Writer:
    def __init__(self, signature: Signature, batch: int, anchors: bool) -> None:
        self.signature, self.batch, self.anchors = signature, batch, anchors
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs: list[Any] = []
        self.attributes = dict(signature.attributes)
        self._random = np.random.default_rng(0)

    def write(self, channels_in: int, channels_out: int) -> bytes:
        from onnx import TensorProto, helper

        result = self._operator(channels_in, channels_out)
        graph = helper.make_graph(
            self.nodes,
            "layer",
            self.inputs,
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        return bytes(model.SerializeToString())

    # ---- parts

    def _node(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = f"{name}{ANCHOR}{len(self.nodes)}" if name == ANCHOR else f"value{len(self.nodes)}"
        node_name = f"{name or kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=node_name, **attributes))
        return output

    def _input(self, *shape: int) -> str:
        from onnx import TensorProto, helper

        name = f"input{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.batch, *shape]))
        return name

    def _weight(self, *shape: int, positive: bool = False) -> str:
        from onnx import numpy_helper

        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(0.1)
        return self._constant(np.abs(values) + np.float32(0.5) if positive else values, numpy_helper)

    def _constant(self, values: Any, numpy_helper: Any = None) -> str:
        from onnx import numpy_helper as helper

        name = f"weight{len(self.weights)}"
        self.weights.append((numpy_helper or helper).from_array(np.asarray(values), name))
        return name

    def _image(self, channels: int, spatial: Sequence[int]) -> str:
        """A tensor (batch, channels, *spatial), in the runtime's own layout if there are anchors."""
        if not self.anchors or len(spatial) != 2:
            return self._input(channels, *spatial)
        few = self._input(_ANCHOR_CHANNELS, *spatial)
        return self._node("Conv", [few, self._weight(channels, _ANCHOR_CHANNELS, 1, 1)], ANCHOR, kernel_shape=[1, 1])

    def _leave(self, value: str, channels: int, spatial: Sequence[int]) -> str:
        if not self.anchors or len(spatial) != 2:
            return value
        return self._node("Conv", [value, self._weight(_ANCHOR_CHANNELS, channels, 1, 1)], ANCHOR, kernel_shape=[1, 1])

    # ---- operators

    def _operator(self, channels_in: int, channels_out: int) -> str:
        kind = self.signature.kind
        if kind.startswith("conv"):
            return self._convolution(channels_in, channels_out)
        if kind == "linear":
            return self._linear(channels_in, channels_out)
        if kind == "matmul":
            several, rows = self.signature.spatial
            left, right = self._input(several, rows, channels_in), self._input(several, channels_in, channels_out)
            return self._node("MatMul", [left, right])
        if kind == "attention":
            return self._attention(channels_in, channels_out)
        if kind == "recurrent":
            return self._recurrent(channels_in, channels_out)
        return self._generic(kind, channels_in)

    def _convolution(self, channels_in: int, channels_out: int) -> str:
        own = self.signature
        groups = channels_in if own.depthwise else own.groups
        if not own.depthwise:  # the channels of a grouped convolution are those of one group
            channels_in, channels_out = channels_in * groups, channels_out * groups
        transposed = own.kind.startswith("conv_transpose")
        x = self._input(channels_in, *own.spatial)
        shape = (channels_in, channels_out // groups) if transposed else (channels_out, channels_in // groups)
        y = self._node(
            "ConvTranspose" if transposed else "Conv",
            [x, self._weight(*shape, *own.kernel), self._weight(channels_out)],
            kernel_shape=list(own.kernel),
            strides=list(own.stride),
            pads=list(own.padding) * 2,
            dilations=list(own.dilation),
            group=groups,
        )
        if transposed:
            return self._fused(y, self._transposed_shape(channels_out))
        effective = [(k - 1) * d + 1 for k, d in zip(own.kernel, own.dilation, strict=True)]
        sizes = [
            (n + 2 * p - k) // s + 1 for n, p, k, s in zip(own.spatial, own.padding, effective, own.stride, strict=True)
        ]
        return self._fused(y, (channels_out, *sizes))

    def _transposed_shape(self, channels_out: int) -> tuple[int, ...]:
        """Shape of what a transposed convolution gives, without the batch (no output padding)."""
        own = self.signature
        sizes = zip(own.spatial, own.stride, own.padding, own.kernel, own.dilation, strict=True)
        return (channels_out, *((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, k, d in sizes))

    def _linear(self, channels_in: int, channels_out: int) -> str:
        (rows,) = self.signature.spatial
        if rows == 1:
            inputs = [self._input(channels_in), self._weight(channels_out, channels_in), self._weight(channels_out)]
            return self._fused(self._node("Gemm", inputs, transB=1), (channels_out,))
        y = self._node("MatMul", [self._input(rows, channels_in), self._weight(channels_in, channels_out)])
        if self.attributes.get("bias", True):
            y = self._node("Add", [y, self._weight(channels_out)])
        return self._fused(y, (rows, channels_out))

    def _attention(self, width: int, value_width: int) -> str:
        heads = int(self.attributes["heads"])
        queries, keys = self.signature.spatial

        def split(rows: int, size: int, order: list[int]) -> str:
            x = self._input(rows, heads * size)
            shape = self._constant(np.array([self.batch, rows, heads, size], dtype=np.int64))
            return self._node("Transpose", [self._node("Reshape", [x, shape])], perm=order)

        scale = self._constant(np.array(1 / math.sqrt(math.sqrt(width)), dtype=np.float32))
        q = self._node("Mul", [split(queries, width, [0, 2, 1, 3]), scale])
        k = self._node("Mul", [split(keys, width, [0, 2, 3, 1]), scale])
        weights = self._node("Softmax", [self._node("MatMul", [q, k])], axis=-1)
        y = self._node("MatMul", [weights, split(keys, value_width, [0, 2, 1, 3])])
        shape = self._constant(np.array([self.batch, queries, heads * value_width], dtype=np.int64))
        return self._node("Reshape", [self._node("Transpose", [y], perm=[0, 2, 1, 3]), shape])

    def _recurrent(self, channels_in: int, hidden: int) -> str:
        cell, directions = str(self.attributes["cell"]), int(self.attributes["directions"])
        operator, gates, more = _CELLS[cell]
        (steps,) = self.signature.spatial
        x = self._node("Transpose", [self._input(steps, channels_in)], perm=[1, 0, 2])
        weights = [
            self._weight(directions, gates * hidden, channels_in),
            self._weight(directions, gates * hidden, hidden),
            self._weight(directions, 2 * gates * hidden),
        ]
        more = {name: value * directions if name == "activations" else value for name, value in more.items()}
        direction = "bidirectional" if directions == 2 else "forward"
        y = self._node(operator, [x, *weights], hidden_size=hidden, direction=direction, **more)
        shape = self._constant(np.array([self.batch, steps, directions * hidden], dtype=np.int64))
        return self._node("Reshape", [self._node("Transpose", [y], perm=[2, 0, 1, 3]), shape])

    def _generic(self, kind: str, channels: int) -> str:
        spatial = self.signature.spatial
        last = bool(self.attributes.get("last"))

        # An addition next to an anchor would be folded into it, a transposition merged with the change of layout.
        plain = last or kind in ("add", "move")

        def tensor() -> str:
            return self._input(*shape) if plain else self._image(channels, spatial)

        shape = (*spatial, channels) if last else (channels, *spatial)
        y = self._body(kind, channels, shape, last, tensor)
        y = self._fused(y, shape)
        if kind == "global_pool" or plain:
            return y
        return self._leave(y, channels, spatial)

    def _body(self, kind: str, channels: int, shape: tuple[int, ...], last: bool, tensor: Any) -> str:
        own = self.signature
        broadcast = (channels,) if last else (channels,) + (1,) * len(own.spatial)
        if kind in ("max_pool2d", "avg_pool2d"):
            return self._node(
                "MaxPool" if kind == "max_pool2d" else "AveragePool",
                [tensor()],
                kernel_shape=list(own.kernel),
                strides=list(own.stride),
                pads=list(own.padding) * 2,
            )
        if kind == "global_pool":
            axes = list(range(1, len(shape))) if last else list(range(2, len(shape) + 1))
            return self._node("ReduceMean", [tensor(), self._constant(np.array(axes, dtype=np.int64))], keepdims=1)
        if kind == "batch_norm":
            statistics = [self._weight(channels, positive=True) for _ in range(4)]
            return self._node("BatchNormalization", [tensor(), *statistics])
        if kind == "layer_norm":
            return self._node("LayerNormalization", [tensor(), self._weight(shape[-1]), self._weight(shape[-1])])
        if kind == "group_norm":
            return self._group_norm(tensor(), channels, shape, broadcast)
        if kind == "softmax":
            return self._node("Softmax", [tensor()], axis=-1)
        if kind == "concat":
            half = max(1, channels // 2)
            if channels == 1:
                return self._node("Identity", [tensor()])
            parts = [half, channels - half]
            names = [self._input(*own.spatial, n) if last else self._image(n, own.spatial) for n in parts]
            return self._node("Concat", names, axis=-1 if last else 1)
        if kind == "resize":
            factor = float(self.attributes.get("scale", 2.0))
            scales = self._constant(np.array([1, 1] + [factor] * len(own.spatial), dtype=np.float32))
            mode = "nearest" if "nearest" in str(self.attributes.get("mode", "")) else "linear"
            return self._node("Resize", [tensor(), "", scales], mode=mode)
        if kind in ("add", "mul"):
            constant = self.attributes.get("operand") == "constant"
            other = self._weight(*broadcast) if constant else tensor()
            return self._node("Add" if kind == "add" else "Mul", [tensor(), other])
        if kind == "scale":
            return self._node("Mul", [tensor(), self._input(*broadcast)])
        if kind == "move":
            return self._node("Transpose", [tensor()], perm=[0, *range(2, len(shape) + 1), 1])
        if kind == "other":  # unknown: as much traffic as an elementwise operator
            return self._node("Mul", [tensor(), self._constant(np.array(1.5, dtype=np.float32))])
        return self._activation(kind, tensor())

    def _group_norm(self, x: str, channels: int, shape: tuple[int, ...], broadcast: tuple[int, ...]) -> str:
        groups = math.gcd(int(self.attributes.get("groups", 1)), channels)
        flat = self._node("Reshape", [x, self._constant(np.array([self.batch, groups, -1], dtype=np.int64))])
        ones, zeros = np.ones(groups, dtype=np.float32), np.zeros(groups, dtype=np.float32)
        y = self._node("InstanceNormalization", [flat, self._constant(ones), self._constant(zeros)])
        y = self._node("Reshape", [y, self._constant(np.array([self.batch, *shape], dtype=np.int64))])
        return self._node("Add", [self._node("Mul", [y, self._weight(*broadcast)]), self._weight(*broadcast)])

    # ---- what is folded in

    def _fused(self, y: str, shape: tuple[int, ...]) -> str:
        for name in self.signature.fused:
            if name == "norm":
                continue  # folded into the weights long before
            if name == "add":
                other = self._image(shape[0], shape[1:]) if len(shape) == 3 else self._input(*shape)
                y = self._node("Add", [y, other])
            else:
                y = self._activation(name, y)
        return y

    def _activation(self, name: str, x: str) -> str:
        if name == "silu":
            return self._node("Mul", [x, self._node("Sigmoid", [x])])
        if name in ("relu6", "clip"):
            bounds = [self._constant(np.array(bound, dtype=np.float32)) for bound in (0.0, 6.0)]
            return self._node("Clip", [x, *bounds])
        if name == "hardsigmoid":
            return self._node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
        if name not in _SIMPLE:
            raise ProfilerUsageError(f"The operator {name!r} cannot be built for timing; it has to be estimated.")
        return self._node(_SIMPLE[name], [x])
