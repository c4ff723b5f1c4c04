"""Run the rules over a recording. An operator without one, or used as its rule does not cover, is left alone."""

from __future__ import annotations

from compressor.graph import rules
from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node


def run_rules(flow: Flow, nodes: list[Node]) -> None:
    """Apply the rule of every node, in order."""
    for node in nodes:
        flow.node = node
        rule = rules.find(node)
        if rule is None:
            _leave_alone(flow, node, "no rule for this operator")
        else:
            try:
                rule(flow, node)
            except (IndexError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
                _leave_alone(flow, node, f"its rule does not cover this use ({type(error).__name__}: {error})")
        for value in node.inputs:
            value.used = True
        for output in node.outputs:
            if len(output.axes) != len(output.shape):
                flow.fix_value(output, "its rule gave another number of axes")
                output.axes = [None] * len(output.shape)
            for d, axis in enumerate(output.axes):
                if axis is not None and len(axis) != output.shape[d]:
                    flow.fix(axis, "its rule gave labels of another length")
                    output.axes[d] = None
    flow.node = None


def _leave_alone(flow: Flow, node: Node, text: str) -> None:
    for value in (*node.inputs, *node.outputs):
        flow.fix_value(value, text)
    for output in node.outputs:
        output.axes = [None] * len(output.shape)
