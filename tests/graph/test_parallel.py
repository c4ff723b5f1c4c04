"""Operators side by side: which can go, exactly what is left without them, and that one always stays."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from compressor.architecture.architecture import Architecture
from compressor.arrays import BoolArray
from compressor.costs import Sizes, build
from compressor.graph import Graph, capture
from compressor.masks import Masking
from compressor.search.constraints.constraint import Constraint, hard_sizes
from compressor.search.constraints.greedy import remove
from compressor.search.constraints.projector import Projector
from compressor.trim import Verifier, plan, trim, trim_verified
from exporters import registry as formats

WIDTH = 6
IMAGE = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Separable(nn.Module):
    """Activation, depthwise and pointwise convolution, as in the One-Shot space."""

    def __init__(self, into: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(into, into, kernel, stride, kernel // 2, groups=into, bias=False)
        self.pointwise = nn.Conv2d(into, out, 1, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.pointwise(self.depthwise(F.relu(x))))


def operator(number: int, into: int, out: int, stride: int) -> nn.Module:
    """One of several kinds; a kernel that keeps the size at stride 1."""
    kernel = (1, 3, 5)[number % 3]
    plain = nn.Conv2d(into, out, kernel, stride, kernel // 2)
    match number % 5:
        case 0:
            return nn.Sequential(plain, nn.BatchNorm2d(out), nn.ReLU())
        case 1:
            return Separable(into, out, 3, stride)
        case 2:
            inner = nn.Sequential(nn.Conv2d(into, 5, 1), nn.ReLU(), nn.Conv2d(5, out, kernel, stride, kernel // 2))
            return nn.Sequential(inner, nn.BatchNorm2d(out))
        case 3:
            return nn.Sequential(nn.AvgPool2d(3, stride, 1), nn.Conv2d(into, out, 1))
    return plain


class Cell(nn.Module):
    """Several operators on one input, aggregated in one of the ways that programs write."""

    def __init__(self, operators: list[nn.Module], how: str, out: int) -> None:
        super().__init__()
        self.operators, self.how = nn.ModuleList(operators), how
        n = len(operators)
        concat = how.startswith("concat")
        self.aggregate = nn.Conv2d(n * out, out, 1) if concat else nn.Identity()
        # No module may go unused: what might be read in another way stays as it is.
        width = {"chain": out, "concat bn": n * out}.get(how)
        self.bn = nn.Identity() if width is None else nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [operator(x) for operator in self.operators]
        match self.how:
            case "sum":
                return sum(outputs)  # type: ignore[return-value]
            case "chain":
                total = outputs[0]
                for y in outputs[1:]:
                    total = y + total
                return self.bn(total).relu()
            case "in place":
                total = outputs[0]
                for y in outputs[1:]:
                    total += y
                return total
            case "skip in place":
                total = _added(outputs)
                total += x
                return F.relu(total)
            case "tree":
                half = len(outputs) // 2
                left, right = outputs[:half], outputs[half:]
                return torch.add(_added(left), _added(right))
            case "skip":
                return F.relu(_added(outputs) + x)
            case "concat":
                return self.aggregate(torch.cat(outputs, 1))
            case "concat bn":  # what is behind the concatenation writes something where there is nothing
                return self.aggregate(F.relu(self.bn(torch.cat(outputs, dim=1))))
        raise AssertionError(self.how)


def _added(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


class Net(nn.Module):
    """A stem, cells, and a head."""

    def __init__(self, *cells: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.cells = nn.Sequential(*cells)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(torch.relu(self.stem(x))).mean((2, 3)))


def cell(how: str, n: int, stride: int = 1, first: int = 0) -> Cell:
    stride = 1 if how.startswith("skip") else stride
    return Cell([operator(first + i, WIDTH, WIDTH, stride) for i in range(n)], how, WIDTH)


def made(*cells: nn.Module) -> Net:
    torch.manual_seed(0)
    model = Net(*cells)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0.2, 1.0)
    return model.eval()


def beside(graph: Graph) -> list[int]:
    return [block.index for block in graph.blocks if block.beside]


def choices(graph: Graph, most: int = 12) -> list[BoolArray]:
    """Sets of blocks that stay: all of them, or some drawn."""
    n = len(graph.blocks)
    if 2**n <= most:
        return [np.array(each, dtype=np.bool_) for each in itertools.product((True, False), repeat=n)]
    rng = np.random.default_rng(n)
    return [np.ones(n, bool), np.zeros(n, bool), *(rng.random(n) < 0.5 for _ in range(most - 2))]


def check_choices(model: nn.Module, graph: Graph, x: Tensor, most: int = 12) -> None:
    """Exact with a third of the channels gone, of the cost that was said, and fit for training."""
    verifier, rng = Verifier(model, graph, x), np.random.default_rng(0)
    for choice in choices(graph, most):
        gates, units = graph.gates(choice), graph.all_units()
        for group in graph.groups:
            units[group.units[rng.permutation(len(group))[: len(group) // 3]]] = False
        architecture = Architecture.from_json(plan(model, graph, units, gates).to_json())
        small = trim(model, architecture)
        check = verifier.check(units, small, architecture, gates)
        assert check.passed, (choice, check)
        again = capture(small, x)
        for cost in ("flops", "params"):
            told = float(build(cost, graph)(hard_sizes(graph, units, gates)))
            assert build(cost, again).original == pytest.approx(told), (cost, choice)
        for block in graph.blocks:
            if not gates[block.index]:
                names = dict(small.named_parameters())
                assert not any(name in names for name in block.parameters)
        fresh = architecture.apply_(copy.deepcopy(model).eval())
        assert torch.equal(fresh(x), small.eval()(x))
        small.train()(x).sum().backward()


FORMS = ("sum", "chain", "tree", "skip", "skip in place", "concat", "concat bn")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("how", FORMS)
def test_every_operator_goes_exactly(how: str, n: int, stride: int) -> None:
    model = made(cell(how, n, stride, first=1 if n == 2 else 0))
    graph = capture(model, IMAGE)
    assert len(beside(graph)) == n
    assert len(graph.parallels) == (how != "skip")
    check_choices(model, graph, IMAGE)


def test_operators_of_cells_behind_each_other_and_within() -> None:
    inner = Cell([operator(1, WIDTH, WIDTH, 1), operator(2, WIDTH, WIDTH, 1)], "sum", WIDTH)
    concat = Cell([operator(2, WIDTH, WIDTH, 1), operator(4, WIDTH, WIDTH, 1)], "concat", WIDTH)
    outer = Cell([inner, operator(2, WIDTH, WIDTH, 1), concat], "concat", WIDTH)
    model = made(cell("chain", 2, 2, first=1), outer)
    graph = capture(model, IMAGE)
    assert len(beside(graph)) == 2 + 3 + 2 + 2
    assert len(graph.parallels) == 4
    assert [len(each.inside) for each in graph.parallels] == [0, 0, 1, 1]
    check_choices(model, graph, IMAGE, most=24)


def test_what_is_added_in_place_is_exact() -> None:
    model = made(cell("in place", 3, first=1))
    check_choices(model, capture(model, IMAGE), IMAGE)


def test_no_operator_alone_and_no_projection_counts() -> None:
    class Two(nn.Module):
        """Operators of different inputs, and one that is read again."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(x) + self.c(y) + y.mean((2, 3), keepdim=True)

    assert not beside(capture(made(Two()), IMAGE))
    assert not beside(capture(models.resnet18(num_classes=4).eval(), torch.randn(1, 3, 32, 32)))
    assert not beside(capture(models.densenet121(num_classes=4).eval(), torch.randn(1, 3, 32, 32)))
    assert not beside(capture(models.shufflenet_v2_x0_5(num_classes=4).eval(), torch.randn(1, 3, 32, 32)))


@pytest.mark.parametrize("how", ["sum", "concat"])
def test_one_stays_whatever_is_asked(how: str) -> None:
    graph = capture(made(cell(how, 3)), IMAGE)
    nothing = np.zeros(len(graph.blocks), dtype=np.bool_)
    (smallest,) = np.flatnonzero(graph.gates(nothing))
    assert graph.parallels[0].blocks[0] == smallest
    for best in range(3):
        assert np.flatnonzero(graph.gates(nothing, np.eye(3)[best])).tolist() == [best]
    only = np.eye(3, dtype=np.bool_)[1]
    assert not graph.spare(only).any()
    assert graph.spare(np.ones(3, dtype=np.bool_)).all()


@pytest.mark.parametrize("how", ["sum", "concat"])
def test_a_greedy_search_leaves_one_of_each(how: str) -> None:
    model = made(cell(how, 3), cell(how, 2))
    graph = capture(model, IMAGE)
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, 1.0)])
    smallest = projector.minimal(np.zeros(graph.n_units))
    least = float(term(hard_sizes(graph, smallest, projector.fewest(smallest))))
    projector = Projector(graph, [Constraint(term, 1.05 * least)])
    projector.check_reachable()
    units, gates, _ = remove(projector, np.ones(graph.n_units), None, rounds=4)
    assert projector.fits(units, gates)
    assert all(any(gates[b] for b in each.blocks) for each in graph.parallels)
    result = trim_verified(model, graph, units, IMAGE, gates=gates)
    assert result.check.passed
    assert not result.refused


class Left(nn.Module):
    """A cell with operators ``left``, written without the others."""

    def __init__(self, whole: Cell, left: list[int]) -> None:
        super().__init__()
        self.whole, self.left = whole, left
        if whole.how == "concat":
            self.aggregate = nn.Conv2d(len(left) * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self.whole.operators[i](x) for i in self.left]
        match self.whole.how:
            case "chain":
                return _added(outputs)
            case "tree":
                halves = [
                    [y for i, y in zip(self.left, outputs, strict=True) if (i < 1) is first] for first in (True, False)
                ]
                return _added([_added(half) for half in halves if half])
            case "skip":
                return F.relu(_added(outputs) + x)
        return self.aggregate(torch.cat(outputs, 1))


@pytest.mark.parametrize("how", ["chain", "tree", "skip", "concat"])
def test_memory_is_that_of_the_network_without_them(how: str) -> None:
    """A sum of two operators of which one is gone is the other, and what they read lives until the last one."""
    whole = cell(how, 3, first=1)
    whole.bn = nn.Identity()
    graph = capture(made(whole), IMAGE)
    whole.aggregate = nn.Identity()
    operators = [b for b in graph.blocks if b.beside]
    names = [b.name.rpartition(".")[2] for b in operators]
    for left in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        gates = np.ones(len(graph.blocks), dtype=np.bool_)
        for name, block in zip(names, operators, strict=True):
            gates[block.index] = int(name.partition("#")[0]) in left
        told = float(build("memory", graph)(hard_sizes(graph, graph.all_units(), gates)))
        made_of = capture(
            made(nn.Sequential(Left(whole, left), nn.ReLU()) if how == "chain" else Left(whole, left)), IMAGE
        )
        assert told == build("memory", made_of).original, left


@pytest.mark.parametrize("how", ["sum", "concat", "concat bn"])
def test_masks_and_costs_learn_through_gates(how: str) -> None:
    graph_model = made(cell(how, 3))
    graph = capture(graph_model, IMAGE)
    gates = torch.tensor([0.5, 0.7, 0.9], requires_grad=True)
    units = torch.ones(graph.n_units)
    with Masking(graph_model, graph).applied(units, gates=gates):
        graph_model(IMAGE).square().sum().backward()
    assert gates.grad is not None
    assert (gates.grad != 0).all()
    soft = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64, requires_grad=True)
    cost = build("flops", graph)(Sizes(graph, units, soft))
    cost.backward()
    term = build("flops", graph)
    whole, none = (float(term(Sizes(graph, units, torch.full((3,), v)))) for v in (1.0, 0.0))
    assert none < float(cost.detach()) < whole
    expected = sum(
        float(np.prod([g if there else 1 - g for g, there in zip((0.5, 0.7, 0.9), each, strict=True)]))
        * float(term(Sizes(graph, units, torch.tensor(each, dtype=torch.float64))))
        for each in itertools.product((0.0, 1.0), repeat=3)
    )
    assert float(cost.detach()) == pytest.approx(expected)  # exact for independent operators


@pytest.mark.parametrize("how", ["sum", "concat"])
def test_a_network_without_an_operator_exports(tmp_path: Path, how: str) -> None:
    model = made(cell(how, 3, 2))
    graph = capture(model, IMAGE)
    for gone in ([0], [0, 2]):
        gates = np.ones(3, dtype=np.bool_)
        gates[gone] = False
        result = trim_verified(model, graph, graph.all_units(), IMAGE, gates=gates)
        assert not result.refused
        for name in ("onnx", "torch-export"):
            info = formats.get(name).export(
                result.model, IMAGE, tmp_path / f"{name}{len(gone)}{'.onnx' if name == 'onnx' else '.pt2'}"
            )
            assert info.checks


def test_a_second_round_goes_on_from_a_network_without_operators() -> None:
    model = made(cell("concat", 3), cell("sum", 3))
    graph = capture(model, IMAGE)
    gates = np.ones(len(graph.blocks), dtype=np.bool_)
    gates[[0, 3]] = False
    small = trim_verified(model, graph, graph.all_units(), IMAGE, gates=gates).model
    again = capture(small, IMAGE)
    assert len(beside(again)) == 4
    assert {len(each.blocks) for each in again.parallels} == {2}
    check_choices(small, again, IMAGE)


Make = Callable[..., nn.Module]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "size"), [(models.googlenet, 64), (models.inception_v3, 96), (models.squeezenet1_1, 64)]
)
def test_branches_of_inception_modules_go_exactly(make: Make, size: int) -> None:
    more = {} if make is models.squeezenet1_1 else {"init_weights": False, "aux_logits": False}
    torch.manual_seed(0)
    model, x = make(num_classes=4, weights=None, **more).eval(), torch.randn(1, 3, size, size)
    graph = capture(model, x)
    operators = beside(graph)
    assert len(operators) >= 16
    rng = np.random.default_rng(0)
    gates = np.ones(len(graph.blocks), dtype=np.bool_)
    gates[operators] = rng.random(len(operators)) < 0.6
    gates, units = graph.gates(gates), graph.all_units()
    for group in graph.groups:
        units[group.units[rng.permutation(len(group))[: len(group) // 4]]] = False
    result = trim_verified(model, graph, units, x, gates=gates)
    assert result.check.passed
    assert not result.refused
