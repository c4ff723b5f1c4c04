"""The program's own methods, costs, choices, runtimes and formats pass the suites that it hands to others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressor.budget import COSTS
from compressor.search import METHODS
from compressor.testing import CostTermContract, OperatorRuleContract, SearchMethodContract
from exporters import registry as formats
from exporters.testing import FormatContract
from profilers import registry as runtimes
from profilers.testing import RuntimeContract


class TestOneShot(SearchMethodContract):
    method = METHODS.get("oneshot")


class TestFigs(SearchMethodContract):
    method = METHODS.get("figs")


class TestDnarch(SearchMethodContract):
    method = METHODS.get("dnarch")


class TestFlops(CostTermContract):
    name = "flops"


class TestParams(CostTermContract):
    name = "params"

    def count(self, model: nn.Module) -> float:
        return sum(parameter.numel() for parameter in model.parameters())


class TestMemory(CostTermContract):
    name = "memory"


class TestComplexity(CostTermContract):
    name = "complexity"


class TestSoftplus(OperatorRuleContract):
    operator = "softplus"
    free = frozenset({"0"})

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3))

    def example(self) -> Any:
        return torch.randn(2, 6)


@pytest.mark.parametrize("name", runtimes.names())
def test_runtimes(name: str) -> None:
    suite = RuntimeContract()
    type(suite).name = name
    suite.test_it_keeps_what_a_runtime_promises()


@pytest.mark.parametrize("name", [name for name in formats.names() if name != "onnx-int8"])
def test_formats(name: str) -> None:
    suite = FormatContract()
    type(suite).name = name
    suite.test_it_keeps_what_a_format_promises()


def test_no_cost_is_left_out() -> None:
    tried = {suite.name for suite in CostTermContract.__subclasses__()}
    assert set(COSTS) - {"latency"} <= tried, "latency is measured: tests/latency"
