"""Operator rules, one file per family.

A rule is a function ``rule(flow, node)`` that joins the labels of ``node.inputs`` and sets ``axes`` of
``node.outputs``; it is registered under the names of the ATen operators it covers (without namespace and overload).
Other distributions add rules through the entry-point group ``compressor.rules``: an entry is named after the operator.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.plugins.registry import Registry

Rule = Callable[[Flow, Node], None]

_FAMILIES = (
    "along",
    "attention",
    "complex",
    "contraction",
    "convolution",
    "detection",
    "distance",
    "elementwise",
    "factory",
    "grouped",
    "indexing",
    "movement",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "view",
)

EXTENSIONS = Registry("operator rule", {}, group="compressor.rules")
_rules: dict[str, Rule] = {}
_loaded: set[bool] = set()


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators. A second rule for the same operator is an error."""

    def add(function: Rule) -> Rule:
        for operator in operators:
            if operator in _rules:
                raise ValueError(f"operator {operator!r} has a rule already: {_rules[operator].__module__}")
            _rules[operator] = function
        return function

    return add


def rules() -> dict[str, Rule]:
    """All built-in rules, and those registered by ``rule``, by operator name."""
    if not _loaded:
        _loaded.add(True)
        for family in _FAMILIES:
            importlib.import_module(f"{__name__}.{family}")
    return _rules


def find(node: Node) -> Rule | None:
    """The rule for a node: by name; without the in-place underscore; elementwise if PyTorch says so; or none."""
    table = rules()
    found = table.get(node.op) or table.get(node.op.rstrip("_"))
    if found is None and node.op in EXTENSIONS:
        found = EXTENSIONS.get(node.op)
    if found is None and node.overload is not None and torch.Tag.pointwise in node.overload.tags:
        found = table["add"]
    return found
