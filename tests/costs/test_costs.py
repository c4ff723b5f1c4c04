"""Costs against what they claim: counts of trimmed models, enumerations over all masks, a simulation of memory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.arrays import UnitMask
from compressor.costs import COSTS, CostTerm, Sizes, build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.trim import plan, trim
from tests.costs.cost_models import MODELS, Depthwise, Residual, image
from tests.graph.random_units import random_units

COUNTED = ("conv", "linear", "matmul", "bmm", "addmm", "einsum")


def hard(graph: Graph, units: UnitMask) -> Sizes:
    return Sizes(graph, torch.from_numpy(units[: graph.n_units].astype(np.float64)))


@pytest.fixture(params=list(MODELS))
def traced(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Graph]:
    make, inputs = MODELS[request.param]
    torch.manual_seed(0)
    model, x = make().eval(), inputs()
    return model, x, capture(model, x)


@pytest.mark.parametrize("seed", range(4))
def test_hard_choices_are_counted_exactly(traced: tuple[nn.Module, Tensor, Graph], seed: int) -> None:
    model, x, graph = traced
    units = random_units(graph, seed)
    trimmed = trim(model, plan(model, graph, units))
    counter = FlopCountAnalysis(trimmed, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = sum(n for operator, n in counter.by_operator().items() if operator in COUNTED)
    assert float(build("flops", graph)(hard(graph, units))) == counted
    assert float(build("params", graph)(hard(graph, units))) == sum(p.numel() for p in trimmed.parameters())


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_memory_is_what_a_run_keeps_alive(traced: tuple[nn.Module, Tensor, Graph], seed: int | None) -> None:
    model, x, graph = traced
    units = graph.all_units() if seed is None else random_units(graph, seed)
    trimmed = trim(model, plan(model, graph, units))
    assert float(build("memory", graph)(hard(graph, units))) == peak_bytes(trimmed, x)


class _Uses(TorchDispatchMode):
    """Which memory every operator touches, in the order of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[int]] = []
        self.bytes: dict[int, int] = {}
        self.alive: list[Any] = []  # addresses stay unique

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tensors = [t for t in pytree.tree_leaves((args, kwargs, output)) if isinstance(t, Tensor)]
        self.alive.append(tensors)
        self.steps.append([self.storage(t) for t in tensors])
        return output

    def storage(self, tensor: Tensor) -> int:
        key = tensor.untyped_storage()._cdata
        self.bytes[key] = tensor.untyped_storage().nbytes()
        return key


def peak_bytes(model: nn.Module, x: Tensor) -> int:
    """Run the model and find, operator by operator, what was made already and is needed still."""
    uses = _Uses()
    with torch.no_grad(), uses:
        output = model(x)
    weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    spans: dict[int, tuple[int, int]] = {}
    for step, storages in enumerate(uses.steps):
        for storage in storages:
            spans[storage] = (spans.get(storage, (step, step))[0], step)
    spans[uses.storage(output)] = (spans[uses.storage(output)][0], len(uses.steps) - 1)
    return max(
        sum(uses.bytes[s] for s, (birth, death) in spans.items() if s not in weights and birth <= step <= death)
        for step in range(len(uses.steps))
    )


def expectation(graph: Graph, term: CostTerm, probabilities: Tensor) -> float:
    """The mean over all masks, each weighed by its probability."""
    total = 0.0
    for bits in itertools.product((0.0, 1.0), repeat=graph.n_units):
        mask = torch.tensor(bits, dtype=torch.float64)
        weight = torch.where(mask > 0, probabilities, 1 - probabilities).prod()
        total += float(weight * term(Sizes(graph, mask)))
    return total


@pytest.mark.parametrize("name", ["chain", "residual", "depthwise", "concatenated", "tied"])
@pytest.mark.parametrize("cost", ["flops", "params"])
def test_expectations_are_means_over_all_masks(name: str, cost: str) -> None:
    make, inputs = MODELS[name]
    graph = capture(make().eval(), inputs())
    assert graph.n_units <= 10
    probabilities = torch.rand(graph.n_units, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    term = build(cost, graph)
    assert float(term(Sizes(graph, probabilities))) == pytest.approx(expectation(graph, term, probabilities), rel=1e-12)


def test_a_depthwise_layer_costs_its_width_once() -> None:
    graph = capture(Depthwise().eval(), image())
    p = torch.full((graph.n_units,), 0.25, dtype=torch.float64)
    layers = dict(zip([t.place for t in graph.products], build("flops", graph).by_layer(Sizes(graph, p)), strict=True))  # type: ignore[attr-defined]
    assert float(layers["depthwise"]) == pytest.approx(0.25 * 5 * 9 * 36)


def test_shared_input_and_output_add_the_variance() -> None:
    """s^2 + sum p (1 - p), as a unit is there on both sides or on neither."""
    graph = capture(Residual().eval(), image())
    p = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    assert graph.n_units == 4
    layers = dict(zip([t.place for t in graph.products], build("flops", graph).by_layer(Sizes(graph, p)), strict=True))  # type: ignore[attr-defined]
    assert float(layers["inner"]) == pytest.approx(float(p.sum() ** 2 + (p * (1 - p)).sum()) * 9 * 36)


@pytest.mark.parametrize("cost", ["flops", "params", "memory"])
def test_gradients_are_those_of_finite_differences(traced: tuple[nn.Module, Tensor, Graph], cost: str) -> None:
    graph = traced[2]
    term = build(cost, graph)
    units = torch.rand(graph.n_units, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    gates = torch.rand(
        len(graph.blocks), generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, g: term(Sizes(graph, u, g)) / term.original, (units, gates))


@pytest.mark.parametrize("cost", ["flops", "params"])
def test_a_block_that_is_gone_costs_nothing(cost: str) -> None:
    model = Residual().eval()
    graph = capture(model, image())
    assert len(graph.blocks) == 1
    without = trim(model, plan(model, graph, graph.all_units(), np.zeros(1, dtype=np.bool_)))
    sizes = Sizes(graph, torch.ones(graph.n_units), torch.zeros(1))
    smaller = capture(without, image())
    assert float(build(cost, graph)(sizes)) == build(cost, smaller).original


def test_terms_say_what_they_are() -> None:
    graph = capture(Residual().eval(), image())
    assert {name: build(name, graph).unit for name in ("flops", "params", "memory")} == {
        "flops": "macs",
        "params": "params",
        "memory": "bytes",
    }
    assert {"flops", "params", "memory"} <= set(COSTS)


def test_an_unknown_term_is_refused() -> None:
    with pytest.raises(UsageError, match="flosp"):
        build("flosp", capture(Residual().eval(), image()))
