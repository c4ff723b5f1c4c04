"""Squeeze-and-excite that can go: which are found, exactly what is left, and what it costs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import SqueezeExcitation

from compressor.architecture.architecture import Architecture
from compressor.backbones.mobilenet_space import SqueezeExcite
from compressor.costs import build
from compressor.graph import Graph, capture
from compressor.masks import Masking
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.trim import Verifier, plan, trim, trim_verified
from exporters import registry as formats

Run = Callable[["Gated", Tensor], Tensor]


def _classic(module: Gated, x: Tensor) -> Tensor:
    """With linear layers, and a factor that is brought to the stream's shape."""
    s = x.mean((2, 3))
    s = torch.sigmoid(module.up(F.relu(module.down(s)))).view(x.shape[0], -1, 1, 1)
    return x * s.expand_as(x)


def _in_place(module: Gated, x: Tensor) -> Tensor:
    s = torch.sigmoid(module.up(F.relu(module.down(x.mean((2, 3))))))
    x = x + 0.0
    x *= s[:, :, None, None]
    return x


def _pooled(module: Gated, x: Tensor) -> Tensor:
    s = F.adaptive_avg_pool2d(x, 1).flatten(1)
    return torch.mul(torch.sigmoid(module.up(F.relu(module.down(s))))[..., None, None], x)


def _positions(module: Gated, x: Tensor) -> Tensor:
    """One factor for each position."""
    return x * torch.sigmoid(module.look(x))


def _keywords(module: Gated, x: Tensor) -> Tensor:
    s = F.hardsigmoid(module.up(F.relu(module.down(x.mean((2, 3))))))
    return torch.mul(input=x, other=s[:, :, None, None])


FORMS: dict[str, Run] = {"classic": _classic, "pooled": _pooled, "positions": _positions, "keywords": _keywords}


class Gated(nn.Module):
    """``run(module, x)`` multiplies the stream of 6 channels by a factor."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.down, self.up, self.look = nn.Linear(6, 3), nn.Linear(3, 6), nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


class Factor(nn.Module):
    """The factor alone; the program around it multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Net(nn.Module):
    """Convolutions with ``gates`` between; with ``around`` each pair is a residual branch."""

    def __init__(self, *gates: nn.Module, around: bool = False) -> None:
        super().__init__()
        self.stem, self.around = nn.Conv2d(3, 6, 3, padding=1), around
        self.gates = nn.ModuleList(gates)
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in gates)
        self.head = nn.Linear(6, 4)
        self.factors = [isinstance(gate, Factor) for gate in gates]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for conv, gate, is_factor in zip(self.convs, self.gates, self.factors, strict=True):
            y = conv(x)
            y = y * gate(y) if is_factor else gate(y)
            x = x + y if self.around else F.relu(y)
        return self.head(x.mean((2, 3)))


IMAGE = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def check_every_choice(model: nn.Module, graph: Graph, x: Tensor) -> None:
    """Every set of blocks with a third of the channels gone: exact, of the cost that was said, fit for training."""
    verifier = Verifier(model, graph, x)
    rng = np.random.default_rng(0)
    for choice in itertools.product((True, False), repeat=len(graph.blocks)):
        gates, units = graph.gates(np.array(choice)), graph.all_units()
        for group in graph.groups:
            units[group.units[rng.permutation(len(group))[: len(group) // 3]]] = False
        architecture = Architecture.from_json(plan(model, graph, units, gates).to_json())
        small = trim(model, architecture)
        check = verifier.check(units, small, architecture, gates)
        assert check.passed, (choice, check)
        again = capture(small, x)
        for cost in ("flops", "params", "memory"):
            told = float(build(cost, graph)(hard_sizes(graph, units, gates)))
            # Sums with a scalar zero and products with a scalar one are left, which exporters fold.
            assert build(cost, again).original == pytest.approx(told, abs=16 if cost == "memory" else 1e-6), cost
        fresh = architecture.apply_(copy.deepcopy(model).eval())
        assert torch.equal(fresh(x), small.eval()(x))
        small.train()(x).sum().backward()


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("name", [*FORMS, "torchvision", "timm", "ours", "factor"])
def test_every_form_is_found_and_goes_exactly(name: str, around: bool) -> None:
    def made() -> nn.Module:
        match name:
            case "torchvision":
                return SqueezeExcitation(6, 3)
            case "timm":
                return timm.layers.SqueezeExcite(6, rd_channels=3)
            case "ours":
                return SqueezeExcite(6)
            case "factor":
                return Factor()
        return Gated(FORMS[name])

    torch.manual_seed(1)
    model = Net(made(), made(), around=around).eval()
    graph = capture(model, IMAGE, squeeze=True)
    squeezes = [block for block in graph.blocks if block.component == "squeeze"]
    assert [block.name for block in squeezes] == ["gates.0", "gates.1"]
    assert {kind for block in squeezes for kind in block.removal.values()} == {
        "one" if name == "factor" else "identity"
    }
    if around and name != "factor":  # whose product is in the way of taking the residual branch out
        assert [graph.blocks[block.inside[0]].component for block in squeezes] == ["depth"] * 2
    hidden = {g.index for g in graph.groups if g.name in ("gates.0.down", "gates.0.fc1")}
    assert hidden <= set(squeezes[0].groups)
    check_every_choice(model, graph, IMAGE)


def test_a_factor_that_is_a_module_becomes_one() -> None:
    model = Net(Factor(), Factor()).eval()
    graph = capture(model, IMAGE, squeeze=True)
    result = trim_verified(model, graph, graph.all_units(), IMAGE, gates=np.array([False, True]))
    assert result.check.passed
    assert not list(result.model.gates[0].parameters())
    result.model.train()(IMAGE).sum().backward()


def test_products_that_are_no_squeeze_are_left_alone() -> None:
    class Glu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.a(x))

    class Elsewhere(nn.Module):
        """The factor is read again."""

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            s = torch.sigmoid(self.a(x.mean((2, 3), keepdim=True)))
            return x * s + s

    class Swish(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.mean((2, 3), keepdim=True)

    for gate in (Glu(), Elsewhere(), Swish()):
        assert not capture(Net(gate).eval(), IMAGE, squeeze=True).blocks


def test_in_place_products_are_exact_or_left() -> None:
    model = Net(Gated(_in_place)).eval()
    graph = capture(model, IMAGE, squeeze=True)
    gates = np.zeros(len(graph.blocks), dtype=np.bool_)
    assert trim_verified(model, graph, graph.all_units(), IMAGE, gates=gates).check.passed


def test_shared_modules_go_together() -> None:
    gate = SqueezeExcite(6)
    model = Net(gate, gate).eval()
    graph = capture(model, IMAGE, squeeze=True)
    (block,) = graph.blocks
    assert set(block.removal) == {"gates.0", "gates.1"}
    assert len(graph.sites) >= 2
    check_every_choice(model, graph, IMAGE)


def test_without_being_asked_nothing_changes() -> None:
    model = Net(SqueezeExcite(6), SqueezeExcite(6), around=True).eval()
    graph = capture(model, IMAGE)
    assert {block.component for block in graph.blocks} == {"depth"}
    assert not any(site.kind == "squeeze" for site in graph.sites)


def test_a_projector_takes_out_what_it_decides_on() -> None:
    model = Net(SqueezeExcite(6), SqueezeExcite(6), around=True).eval()
    graph = capture(model, IMAGE, squeeze=True)
    squeeze = np.array([block.component == "squeeze" for block in graph.blocks])

    def removable(**more: object) -> list[bool]:
        return Projector(graph, [], **more).removable.tolist()  # type: ignore[arg-type]

    assert removable(decides=frozenset({"width", "depth"})) == (~squeeze).tolist()
    assert removable(decides=frozenset({"squeeze"})) == squeeze.tolist()
    assert removable(depth=False) == squeeze.tolist()
    assert removable() == [True] * len(squeeze)
    assert removable(whole={"gates.0"})[int(np.flatnonzero(squeeze)[0])] is False


def test_a_gate_moves_the_factor_towards_one() -> None:
    model = Net(SqueezeExcite(6)).eval()
    graph = capture(model, IMAGE, squeeze=True)
    ones, whole = torch.ones(graph.n_units), model(IMAGE)
    masking = Masking(model, graph)
    with masking.applied(ones, gates=torch.ones(1)):
        assert torch.equal(model(IMAGE), whole)
    with masking.applied(ones, gates=torch.zeros(1)):
        closed = model(IMAGE)
    without = copy.deepcopy(model)
    without.gates[0] = nn.Identity()
    torch.testing.assert_close(closed, without(IMAGE))
    gate = torch.full((1,), 0.5, requires_grad=True)
    with masking.applied(ones, gates=gate):
        model(IMAGE).sum().backward()
    assert gate.grad is not None
    assert gate.grad.abs().sum() > 0


def test_mobilenet_v3_exports_without_its_squeezes(tmp_path: Path) -> None:
    model, x = models.mobilenet_v3_small(num_classes=5).eval(), torch.randn(1, 3, 32, 32)
    graph = capture(model, x, squeeze=True)
    squeezes = [block for block in graph.blocks if block.component == "squeeze"]
    assert len(squeezes) == sum(isinstance(m, SqueezeExcitation) for m in model.modules())
    gates = np.array([block.component == "depth" for block in graph.blocks])
    result = trim_verified(model, graph, graph.all_units(), x, gates=gates)
    assert result.check.passed
    assert not result.refused
    formats.get("onnx").export(result.model, x, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "mobilenetv3_small_050", "mnasnet_small", "seresnet18", "ecaresnet26t"]
)
def test_networks_of_timm_lose_them_exactly(name: str) -> None:
    model, x = timm.create_model(name, num_classes=5).eval(), torch.randn(1, 3, 64, 64)
    graph = capture(model, x, squeeze=True)
    squeezes = [block for block in graph.blocks if block.component == "squeeze"]
    assert squeezes
    gates = np.array([block.component == "depth" or i % 3 for i, block in enumerate(graph.blocks)], dtype=np.bool_)
    result = trim_verified(model, graph, graph.all_units(), x, gates=gates)
    assert result.check.passed
    assert not result.refused
