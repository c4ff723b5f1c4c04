"""ONNX files in an older operator set than torch's exporter writes.

Each operator that changed since is written as the older set has it, where that means the same. Whether all of the graph
is known to the older set is looked up in ONNX's own schemas, and what the file computes is compared like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporters.errors import ExporterUsageError, UnsupportedExportError

#: Below, operators have so little in common with today's that nothing comes out.
OLDEST = 11

Nodes = list[Any]
_Rule = Callable[[Any, "_Graph"], Nodes]


def check_opset(version: int | None) -> None:
    """Raise :class:`ExporterUsageError` for what is no operator set that ONNX knows and this program may write."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if version is not None and (
        isinstance(version, bool) or not isinstance(version, int) or not OLDEST <= version <= newest
    ):
        raise ExporterUsageError(f"The ONNX opset is a whole number from {OLDEST} to {newest}, not {version!r}.")


def at_opset(path: Path, version: int, *, large: bool) -> None:
    """Rewrite the file at ``path`` in operator set ``version``.

    Raises :class:`UnsupportedExportError`, with the sets that the file can be had in, if an operator has no older form.
    """
    import onnx

    proto = onnx.load(str(path))
    native = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    lacking = _downgrade(proto, native, version)
    if lacking:
        possible = [v for v in range(OLDEST, native) if v > version and not _downgrade(onnx.load(str(path)), native, v)]
        raise UnsupportedExportError(
            f"The model cannot be written in ONNX opset {version}, which lacks {', '.join(lacking)}; "
            f"it can be had in {', '.join(map(str, [*possible, native]))}."
        )
    onnx.save(proto, str(path), save_as_external_data=large, location=f"{path.name}.data", all_tensors_to_one_file=True)


def _downgrade(proto: Any, native: int, version: int) -> list[str]:
    """Change ``proto`` in place; returns the operators that ``version`` has no form of."""
    import onnx

    if version > native:  # newer sets take over what older ones meant, as ONNX's own converter knows
        try:
            proto.CopyFrom(onnx.version_converter.convert_version(proto, version))
        except Exception as error:  # the converter raises what its C++ raises
            return [str(error).strip().splitlines()[-1]]
        return []
    lacking: dict[str, None] = {}
    for graph in _graphs(proto.graph):
        view = _Graph(graph, version)
        nodes: Nodes = []
        for node in list(graph.node):
            rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            nodes += rule(node, view) if rule is not None else [node]
        del graph.node[:]
        graph.node.extend(nodes)
        lacking |= dict.fromkeys(
            problem for node in graph.node if node.domain in ("", "ai.onnx") and (problem := _lacks(node, version))
        )
    for function in proto.functions:
        lacking[f"the function {function.name}"] = None
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = version
    proto.ir_version = min(proto.ir_version, onnx.helper.find_min_ir_version_for(proto.opset_import))
    if proto.ir_version < 4:
        proto.ir_version = 4  # initializers need not be inputs
    return list(lacking)


def _graphs(graph: Any) -> list[Any]:
    inner = [
        found
        for node in graph.node
        for attribute in node.attribute
        for one in ([attribute.g] if attribute.HasField("g") else list(attribute.graphs))
        for found in _graphs(one)
    ]
    return [graph, *inner]


def _lacks(node: Any, version: int) -> str:
    """What of a node an operator set does not have, in words; empty if it has it all."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, version)
    except onnx.defs.SchemaError:
        return str(node.op_type)
    strange = [a.name for a in node.attribute if a.name not in schema.attributes]
    if strange:
        return f"{node.op_type} with {', '.join(strange)}"
    if len(node.input) > schema.max_input:
        return f"{node.op_type} with {len(node.input)} inputs"
    return ""


class _Graph:
    """Constants of a graph, and fresh names."""

    def __init__(self, graph: Any, version: int) -> None:
        self.graph, self.version, self._fresh = graph, version, 0
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t

    def values(self, name: str) -> list[Any] | None:
        """A constant's values, flat; ``None`` if it is not constant."""
        from onnx import numpy_helper

        tensor = self._constants.get(name)
        return None if tensor is None else list(numpy_helper.to_array(tensor).reshape(-1).tolist())

    def constant(self, values: Any, like: str = "int64") -> str:
        """A new constant."""
        import numpy as np
        from onnx import numpy_helper

        name = self.name("constant")
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype=like), name))
        return name

    def name(self, stem: str) -> str:
        self._fresh += 1
        return f"opset_{stem}_{self.graph.name}_{self._fresh}"


def _attribute(node: Any, name: str, default: Any = None) -> Any:
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _drop(node: Any, name: str, *harmless: Any) -> None:
    """Take an attribute away if it says no more than what the older operator does anyway."""
    for attribute in [a for a in node.attribute if a.name == name]:
        if _attribute(node, name) in harmless:
            node.attribute.remove(attribute)


def _make(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    import onnx

    return onnx.helper.make_node(kind, inputs, outputs, **attributes)


def _reduce(node: Any, graph: _Graph) -> Nodes:
    """Since 18 the axes are an input (those of ReduceSum since 13), before an attribute."""
    since = 13 if node.op_type == "ReduceSum" else 18
    if graph.version >= since:
        return [node]
    _drop(node, "noop_with_empty_axes", 0)
    if len(node.input) > 1 and node.input[1]:
        axes = graph.values(node.input[1])
        if axes is None:
            return [node]
        if axes:
            node.attribute.append(_axes(axes))
    del node.input[1:]
    return [node]


def _axes(axes: list[int]) -> Any:
    import onnx

    return onnx.helper.make_attribute("axes", axes)


def _squeeze(node: Any, graph: _Graph) -> Nodes:
    """Since 13 the axes are an input."""
    if graph.version < 13 and len(node.input) > 1:
        axes = graph.values(node.input[1])
        if axes is None:
            return [node]
        node.attribute.append(_axes(axes))
        del node.input[1:]
    return [node]


def _split(node: Any, graph: _Graph) -> Nodes:
    import onnx

    if graph.version < 18 and len(node.input) < 2:
        _drop(node, "num_outputs", len(node.output))  # equal parts are what a Split without sizes makes
    elif graph.version < 18:
        _drop(node, "num_outputs", _attribute(node, "num_outputs"))
    if graph.version < 13 and len(node.input) > 1:
        sizes = graph.values(node.input[1])
        if sizes is not None:
            node.attribute.append(onnx.helper.make_attribute("split", sizes))
            del node.input[1:]
    return [node]


def _reshape(node: Any, graph: _Graph) -> Nodes:
    if graph.version < 14:
        wanted = graph.values(node.input[1])
        zeros = wanted is None or 0 in wanted
        _drop(node, "allowzero", 0, *([] if zeros else [1]))
    return [node]


def _shape(node: Any, graph: _Graph) -> Nodes:
    """Since 15 a part of the shape can be asked for."""
    start, end = _attribute(node, "start", 0), _attribute(node, "end")
    if graph.version >= 15 or not (len(node.attribute)):
        return [node]
    whole = graph.name("shape")
    ends = end if end is not None else 2**31 - 1
    return [
        _make("Shape", [node.input[0]], [whole]),
        _make("Slice", [whole, graph.constant([start]), graph.constant([ends])], [node.output[0]]),
    ]


def _hardswish(node: Any, graph: _Graph) -> Nodes:
    if graph.version >= 14:
        return [node]
    gate = graph.name("gate")
    return [
        _make("HardSigmoid", [node.input[0]], [gate], alpha=1 / 6, beta=0.5),
        _make("Mul", [node.input[0], gate], [node.output[0]]),
    ]


def _layer_norm(node: Any, graph: _Graph) -> Nodes:
    """Since 17 one operator."""
    if graph.version >= 17 or len([o for o in node.output if o]) != 1:
        return [node]
    axis, epsilon = _attribute(node, "axis", -1), _attribute(node, "epsilon", 1e-5)
    if axis >= 0:
        return [node]
    axes = list(range(axis, 0))
    mean, centred, square, variance, shifted, deviation, normal, scaled = (graph.name("norm") for _ in range(8))
    last = node.output[0] if len(node.input) < 3 else scaled
    nodes = [
        _make("ReduceMean", [node.input[0]], [mean], axes=axes),
        _make("Sub", [node.input[0], mean], [centred]),
        _make("Mul", [centred, centred], [square]),
        _make("ReduceMean", [square], [variance], axes=axes),
        _make("Add", [variance, graph.constant(epsilon, "float32")], [shifted]),
        _make("Sqrt", [shifted], [deviation]),
        _make("Div", [centred, deviation], [normal]),
        _make("Mul", [normal, node.input[1]], [last]),
    ]
    return nodes if len(node.input) < 3 else [*nodes, _make("Add", [scaled, node.input[2]], [node.output[0]])]


def _resize(node: Any, graph: _Graph) -> Nodes:
    if graph.version < 18:
        _drop(node, "antialias", 0)
        _drop(node, "keep_aspect_ratio_policy", b"stretch")
    if graph.version < 13 and len(node.input) > 1 and not node.input[1]:
        node.input[1] = graph.constant([], "float32")
        if len(node.input) > 3 and not node.input[2]:
            node.input[2] = graph.constant([], "float32")
    return [node]


def _batch_norm(node: Any, graph: _Graph) -> Nodes:
    if graph.version < 14:
        _drop(node, "training_mode", 0)
    return [node]


def _recurrent(node: Any, graph: _Graph) -> Nodes:
    if graph.version < 14:
        _drop(node, "layout", 0)
    return [node]


def _gelu(node: Any, graph: _Graph) -> Nodes:
    """Since 20 one operator; before, the error function."""
    if graph.version >= 20 or _attribute(node, "approximate", b"none") != b"none":
        return [node]
    half, inner, outer, shifted = (graph.name("gelu") for _ in range(4))
    return [
        _make("Mul", [node.input[0], graph.constant(0.5**0.5, "float32")], [inner]),
        _make("Erf", [inner], [outer]),
        _make("Add", [outer, graph.constant(1.0, "float32")], [shifted]),
        _make("Mul", [node.input[0], shifted], [half]),
        _make("Mul", [half, graph.constant(0.5, "float32")], [node.output[0]]),
    ]


def _mish(node: Any, graph: _Graph) -> Nodes:
    """Since 18 one operator."""
    if graph.version >= 18:
        return [node]
    soft, gate = graph.name("mish"), graph.name("mish")
    return [
        _make("Softplus", [node.input[0]], [soft]),
        _make("Tanh", [soft], [gate]),
        _make("Mul", [node.input[0], gate], [node.output[0]]),
    ]


_REDUCTIONS = ("Max", "Mean", "Min", "Prod", "Sum", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
_RULES: dict[str, _Rule] = {
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS},
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "Split": _split,
    "Reshape": _reshape,
    "Shape": _shape,
    "HardSwish": _hardswish,
    "LayerNormalization": _layer_norm,
    "Resize": _resize,
    "BatchNormalization": _batch_norm,
    "Gelu": _gelu,
    "Mish": _mish,
}
