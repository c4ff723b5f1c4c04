"""Rules: those of the documentation work as printed, wrong ones are caught, and missing ones fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.graph import capture
from compressor.graph import rules as registered
from compressor.graph.graph import Graph
from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule, rules
from compressor.trim import TrimResult, trim_verified
from tests.graph.tiny import Tiny

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The rules, to be changed for one test."""
    changed = dict(rules())
    monkeypatch.setattr(registered, "_rules", changed)
    return changed


def _trimmed(model: nn.Module, x: Tensor) -> tuple[Graph, TrimResult]:
    graph = capture(model.eval(), x)
    units = graph.all_units()
    rng = np.random.default_rng(0)
    for group in graph.groups:
        units[group.units] = rng.permutation(len(group)) < max(1, len(group) // 2)
    return graph, trim_verified(model, graph, units, x)


def test_the_documented_rule_works_as_printed(table: dict[str, Any]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    space: dict[str, Any] = {}
    for block in blocks[:2]:
        exec(compile(block, str(PAGE), "exec"), space)
    swap = space["swap_halves"]
    model = Tiny(
        lambda m, x: m.b(swap(m.a(x), m.s)), a=nn.Conv2d(3, 8, 1), s=nn.Parameter(torch.rand(8)), b=nn.Conv2d(8, 4, 1)
    )
    x = torch.randn(1, 3, 5, 5)
    graph, _ = _trimmed(model, x)
    assert [len(g) for g in graph.groups] == [4]
    space.update(model=model, example=x)
    exec(compile(blocks[2], str(PAGE), "exec"), space)
    assert space["result"].model.a.out_channels == 4


def test_an_operator_without_a_rule_fixes_what_it_touches(table: dict[str, Any]) -> None:
    del table["flip"]
    model = Tiny(lambda m, x: m.b(m.a(x).flip(1)), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 4, 1))
    graph, result = _trimmed(model, torch.randn(1, 3, 5, 5))
    assert not graph.groups
    assert any(f.operator == "flip" and f.reason == "no rule for this operator" for f in graph.fixed)
    assert result.check.passed


def test_a_rule_that_raises_fixes_what_it_touches(table: dict[str, Any]) -> None:
    def broken(flow: Flow, node: Node) -> None:
        raise IndexError("no such axis")

    table["flip"] = broken
    model = Tiny(lambda m, x: m.b(m.a(x).flip(1)), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 4, 1))
    graph, _ = _trimmed(model, torch.randn(1, 3, 5, 5))
    assert any("does not cover" in f.reason for f in graph.fixed)


def test_a_wrong_rule_is_caught_and_only_its_groups_are_restored(table: dict[str, Any]) -> None:
    table["flip"] = table["add"]  # as if the order of channels did not change
    model = Tiny(
        lambda m, x: m.c(m.b(torch.relu(m.a(x)).flip(1)).tanh()),
        a=nn.Conv2d(3, 8, 1),
        b=nn.Conv2d(8, 12, 1),
        c=nn.Conv2d(12, 4, 1),
    )
    graph, result = _trimmed(model, torch.randn(1, 3, 5, 5))
    assert [g.name for g in graph.groups] == ["a", "b"]
    assert result.refused == ["a"]
    assert result.check.passed
    assert result.model.a.out_channels == 8
    assert result.model.b.out_channels == 6


def test_a_second_rule_for_an_operator_is_an_error() -> None:
    rules()
    with pytest.raises(ValueError, match="has a rule already"):
        rule("flip")(lambda flow, node: None)


def test_every_operator_family_is_registered() -> None:
    assert {"convolution", "addmm", "cat", "view", "mean", "native_layer_norm", "lstm", "embedding"} <= set(rules())
