"""Where a block's gate acts in the masked model: at 0 the branch contributes exactly nothing.

A branch that ends in an operator linear in its parameters is scaled by scaling those: batch norm, convolution or linear
layer by weight and bias together, a layer scale by itself. Operators after it that keep zero (changes of layout,
dropout) do not matter. That costs one small multiplication per parameter. Where there is no such operator, the branch's
value is multiplied at the call of the addition.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.graph.dataflow import Dataflow
from compressor.graph.graph import Site
from compressor.graph.record import Node, Value
from compressor.graph.removal import Branch

# Positions of the parameters in which the result is linear; those of the last line scale a norm's output.
_LINEAR_IN = {
    "convolution": (1, 2), "_convolution": (1, 2), "linear": (1, 2), "addmm": (0, 2), "mm": (1,), "bmm": (1,),
    "matmul": (1,),
    "native_batch_norm": (1, 2), "_native_batch_norm_legit_no_training": (1, 2), "cudnn_batch_norm": (1, 2),
    "native_layer_norm": (2, 3), "native_group_norm": (1, 2),
}  # fmt: skip
KEEPS_ZERO = {"view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "unsqueeze", "squeeze",
              "contiguous", "clone", "alias", "detach", "_to_copy", "slice", "roll", "flip", "expand", "dropout",
              "native_dropout", "pixel_shuffle", "pixel_unshuffle", "select", "index", "repeat"}  # fmt: skip


_EMPTY = {"new_zeros", "zeros", "zeros_like"}


@dataclass
class Gate:
    """The parameters to multiply, or the site."""

    parameters: tuple[str, ...] = ()
    site: Site | None = None


def find_gate(dataflow: Dataflow, branch: Branch, values: dict[str, Value]) -> Gate | None:
    """Where a branch's gate acts; ``None`` if nothing can be multiplied.

    ``values`` are those of the parameters by name.
    """
    names = _Scaling(dataflow, branch, values).of(branch.value, 4)
    if names:
        return Gate(tuple(sorted(names)))
    call = branch.add.call
    if call is None or call.name not in ("add", "add_"):
        return None
    position = next((p for p, value in call.values if value is branch.value), None)
    if position is None:
        return None
    options = {"argument": position, "in_place": call.name == "add_" and position == 0}
    return Gate(site=Site("gate", call.place, call.name, call.ordinal, None, options))


class _Scaling:
    def __init__(self, dataflow: Dataflow, branch: Branch, values: dict[str, Value]) -> None:
        self.dataflow, self.branch, self.values = dataflow, branch, values

    def of(self, value: Value, depth: int) -> set[str] | None:
        """Parameters that, multiplied together by g, multiply ``value`` by g."""
        if value.param is not None:
            return {value.param} if self._own(value.param) else None
        node = value.producer
        if node is None or depth < 0 or not self.dataflow.serves(node.index, self.branch.root):
            return None
        op = node.op.rstrip("_")
        if op in KEEPS_ZERO:
            return self.of(node.inputs[0], depth)
        if op == "index_add" and node.inputs[0].producer is not None and node.inputs[0].producer.op in _EMPTY:
            return self.of(node.inputs[2], depth)
        if op == "mul":
            factors = sorted((a for a in node.args if isinstance(a, Value)), key=lambda factor: factor.param is None)
            return next((found for f in factors if (found := self.of(f, depth - 1))), None)
        if op == "add":
            terms = [a for a in node.args if isinstance(a, Value)]
            parts = [self.of(term, depth - 1) for term in terms]
            return set().union(*(part for part in parts if part)) if len(terms) == 2 and all(parts) else None
        return self._linear_in(node)

    def _linear_in(self, node: Node) -> set[str] | None:
        names: set[str] = set()
        for i, position in enumerate(_LINEAR_IN.get(node.op, ())):
            argument = node.args[position] if position < len(node.args) else None
            if not isinstance(argument, Value):
                if i == 0:
                    return None
                continue  # no bias
            if argument.param is None:
                return None
            names.add(argument.param)
        return names if names and all(self._own(name) for name in names) else None

    def _own(self, name: str) -> bool:
        """Whether nothing outside the branch reads the parameter."""
        readers = self.dataflow.readers.get(self.values[name].index, [])
        return all(self.dataflow.serves(n, self.branch.root) for n in readers)
