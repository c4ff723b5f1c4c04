"""Where a block's gate acts in the masked model: at 0 the branch contributes exactly nothing.

A branch that ends in an operator linear in its parameters is scaled by scaling those: batch norm, convolution or linear
layer by weight and bias together, a layer scale by itself. Operators after it that keep zero (changes of layout,
dropout) do not matter. That costs one small multiplication per parameter. Where there is no such operator, the branch's
value is multiplied at the call of the addition.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.analysis.module_calls import Branch
from compressor.graph.graph import Site
from compressor.graph.recording.values import Node, Value

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


# Functions that take a branch's output as one operand of a sum.
_SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "subtract", "subtract_", "rsub", "__sub__",
         "__rsub__", "__isub__"}  # fmt: skip


@dataclass
class Gate:
    """The parameters to multiply, or the sites."""

    parameters: tuple[str, ...] = ()
    sites: tuple[Site, ...] = ()


def find_gate(
    dataflow: Dataflow, branches: list[Branch], values: dict[str, Value], *, at_call: bool = False
) -> Gate | None:
    """Where a block's gate acts, which may have several branches that run the same modules; ``None`` if nothing can be
    multiplied.

    Args:
        values: those of the parameters by name.
        at_call: only at the call of the addition, as the branch ends in other parameters for other inputs.
    """
    names = [_Scaling(dataflow, branches, values, branch).of(branch.value, 4) for branch in branches]
    if not at_call and names[0] and all(each == names[0] for each in names):
        return Gate(tuple(sorted(names[0])))
    sites = [_site(branch) for branch in branches]
    found = tuple(site for site in sites if site is not None)
    return Gate(sites=found) if len(found) == len(branches) else None


def _site(branch: Branch) -> Site | None:
    """The call of the addition, at which the branch's value is multiplied."""
    call = branch.add.call
    if call is None or call.name not in _SUMS:
        return None
    position = next((p for p, value in call.values if value is branch.value), None)
    if position is None:
        return None
    in_place = position == 0 and (call.name.startswith("__i") or (call.name.endswith("_") and call.name[-2] != "_"))
    options = {"argument": position, "in_place": in_place}
    return Site("gate", call.place, call.name, call.ordinal, None, options)


class _Scaling:
    def __init__(self, dataflow: Dataflow, branches: list[Branch], values: dict[str, Value], branch: Branch) -> None:
        self.dataflow, self.branch, self.values = dataflow, branch, values
        self._roots = [each.root for each in branches]

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
            if len(terms) == 1 and node.args[:2].count(0) == 1:  # as sum() begins with
                return self.of(terms[0], depth)
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
        """Whether nothing outside the block's branches reads the parameter."""
        readers = self.dataflow.readers.get(self.values[name].index, [])
        return all(any(self.dataflow.serves(n, root) for root in self._roots) for n in readers)
