"""Search dimensions, policies, and subnets at their own size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from compressor.backbones import BACKBONES
from compressor.errors import UnsupportedModelError
from compressor.graph import capture
from compressor.graph.choices import add_choices
from compressor.graph.graph import Graph
from compressor.masks import Masking
from compressor.search.constraints.constraint import Constraint, hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.methods.supernet.config import SupernetConfig
from compressor.search.methods.supernet.dimensions import find_dimensions
from compressor.search.methods.supernet.policy import Policy, uniform, within
from compressor.search.methods.supernet.space import Space
from compressor.search.training.subnets import Subnets
from compressor.testing.networks import NETWORKS, network
from compressor.trim import trim_verified
from tests.search.staged import Staged

ALL = SupernetConfig(learn=("width", "depth", "kernel", "squeeze", "activation"))


def space_of(model: nn.Module, x: Tensor, config: SupernetConfig = ALL, *, round_to: int | None = 1) -> Space:
    graph = capture(model, x, kernels="kernel" in config.decides, squeeze="squeeze" in config.decides)
    if "activation" in config.decides:
        add_choices(model, graph, ["activation"])
    projector = Projector(graph, [], round_to=round_to, decides=config.decides)
    scores = np.random.default_rng(0).random(graph.n_units)
    return Space(projector, find_dimensions(model, projector, config, scores))


def kinds(space: Space) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in space.dimensions:
        found[each.kind] = found.get(each.kind, 0) + 1
    return found


def drawn(space: Space, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return np.array([rng.integers(n) for n in space.lengths])


@pytest.mark.parametrize(
    ("name", "learn", "expected"),
    [
        ("mobilenet_v2_space", ("width", "depth", "kernel"), {"width": 30, "depth": 5, "kernel": 8}),
        ("mobilenet_width", ("width",), {"width": 25}),
        (
            "mobilenet_v3_space",
            ("width", "depth", "kernel", "squeeze", "activation"),
            {"width": 30, "depth": 5, "kernel": 8, "squeeze": 7, "activation": 7},
        ),
    ],
)
def test_the_papers_spaces_have_their_dimensions(name: str, learn: Any, expected: dict[str, int]) -> None:
    model = BACKBONES.get(name)()
    space = space_of(model, torch.randn(1, 3, 32, 32), SupernetConfig(learn=learn))
    assert kinds(space) == expected
    assert len(space) == {"mobilenet_v2_space": 43, "mobilenet_width": 25, "mobilenet_v3_space": 57}[name]
    by_name = {(each.name, each.kind): each.labels for each in space.dimensions}
    if "kernel" in learn:
        assert {labels for (_, kind), labels in by_name.items() if kind == "kernel"} == {(3, 5)}
        assert {labels for (_, kind), labels in by_name.items() if kind == "depth"} == {(0, 1, 2, 3)}


def test_kernels_of_a_stage_are_one_dimension_and_widths_are_eighths() -> None:
    space = space_of(torchvision.models.resnet18(num_classes=4), torch.randn(1, 3, 64, 64))
    assert kinds(space)["depth"] == 4
    stem = next(each for each in space.dimensions if each.name.startswith("conv1") and each.kind == "kernel")
    assert stem.labels == (3, 5, 7)
    for each in space.dimensions:
        if each.kind == "width":
            assert [round(8 * share) for share in each.shares] == list(range(1, 9))


SPACES = {
    **{name: (lambda name=name: network(name), (3, 8, 8)) for name in NETWORKS},
    "staged": (Staged, (3, 16, 16)),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=3), (3, 32, 32)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = SPACES[name]
    model: nn.Module = make()
    for module in model.modules():  # ones and zeros would hide mistakes
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model, torch.randn(4, *shape)


@pytest.mark.parametrize("name", SPACES)
def test_choices_are_nested_and_relaxed_ones_agree_with_hard_ones(name: str) -> None:
    model, x = made(name)
    space = space_of(model, x[:1])
    units, gates = space.hard(space.largest)
    assert units[:-1].sum() == space.projector.start[:-1].sum() or "activation" in kinds(space)
    assert gates.all()
    for seed in range(4):
        choices = drawn(space, seed)
        units, gates = space.hard(choices)
        soft, soft_gates = space.relaxed(space.one_hot(choices))
        assert np.array_equal(soft.numpy() > 0.5, units[:-1])
        assert np.array_equal(space.graph.gates(soft_gates.numpy() > 0.5), gates)
        larger = np.minimum(choices + 1, space.largest)
        nested = [each for each in space.dimensions if each.nested]
        more, _ = space.hard(larger)
        for each in nested:
            assert (more[each.units] >= units[each.units]).all()
        for choice in space.graph.choices:
            assert units[choice.units].sum() == 1
    # Weights of choices give expectations: those of two networks, half of each.
    a, b = space.one_hot(drawn(space, 1)), space.one_hot(drawn(space, 2))
    mixed, _ = space.relaxed((a + b) / 2)
    assert torch.allclose(mixed, (space.relaxed(a)[0] + space.relaxed(b)[0]) / 2)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("training", [False, True])
def test_a_subnet_is_what_the_trimmed_network_computes(name: str, training: bool) -> None:
    """In float64, gradients of the weights included; normalisations take the statistics of the batch in both."""
    model, x = made(name)
    space = space_of(model, x[:1])
    model.double().train(training)
    subnets = Subnets(model, space.graph)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for seed in range(3):
        choices = [space.smallest, drawn(space, seed), space.largest][seed]
        units, gates = space.hard(choices)
        torch.manual_seed(1)
        ours = subnets.forward(x.double(), units, gates, dropout=False)
        alone = subnets.network(units, gates)
        for module in alone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
            if isinstance(module, nn.Dropout):
                module.eval()
        theirs = alone(x.double())
        assert (ours - theirs).abs().max() <= 1e-9 * max(1.0, float(theirs.abs().max()))
        model.zero_grad()
        ours.square().sum().backward()
        theirs.square().sum().backward()
        sums = [sum(float(p.grad.abs().sum()) for p in m.parameters() if p.grad is not None) for m in (model, alone)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-9)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key  # running statistics included


@pytest.mark.parametrize("name", ["plain", "residual", "separable", "staged"])
def test_slicing_is_masking(name: str) -> None:
    """Outputs and the gradients of all masks of what is kept, in float64."""
    model, x = made(name)
    config = SupernetConfig(learn=("width", "depth", "kernel"))
    space = space_of(model, x[:1], config)
    model.double().train()
    subnets, masking = Subnets(model, space.graph), Masking(model, space.graph)
    for seed in range(3):
        units, gates = space.hard(drawn(space, seed))
        kept = torch.from_numpy(units[:-1]).double()
        there = torch.from_numpy(gates).double()
        mine = [kept.clone().requires_grad_(), there.clone().requires_grad_()]
        masked = [kept.clone().requires_grad_(), there.clone().requires_grad_()]
        ours = subnets.forward(x.double(), units, gates, lambda mine=mine: (mine[0], mine[1]))
        with masking.applied(masked[0], gates=masked[1]):
            theirs = model(x.double())
        assert torch.allclose(ours, theirs, atol=1e-10)
        ours.square().sum().backward()
        theirs.square().sum().backward()
        for a, b, alive in zip(mine, masked, (kept, there), strict=True):
            if len(a):
                found, wanted = (t.grad if t.grad is not None else torch.zeros_like(t) for t in (a, b))
                assert torch.allclose(found * alive, wanted * alive, atol=1e-8)


def test_gates_and_alternatives_have_the_gradients_of_their_weights() -> None:
    """Of squeeze-and-excite modules and of activations, against central differences in float64."""
    torch.manual_seed(0)
    model = BACKBONES.get("mobilenet_v3_space")(width=0.1).double().train()
    x = torch.randn(2, 3, 16, 16).double()
    space = space_of(model, x[:1], SupernetConfig(learn=("squeeze", "activation")))
    subnets = Subnets(model, space.graph)
    choices = space.largest.copy()
    choices[0] = 0
    units, gates = space.hard(choices)

    def loss(soft: Tensor, there: Tensor) -> Tensor:
        found: Tensor = subnets.forward(x, units, gates, lambda: (soft, there), dropout=False).square().sum()
        return found

    start = torch.from_numpy(units[:-1]).double(), torch.from_numpy(gates).double()
    soft, there = (each.clone().requires_grad_() for each in start)
    loss(soft, there).backward()
    assert soft.grad is not None
    assert there.grad is not None
    taken = [int(choice.units[i]) for choice in space.graph.choices for i in range(len(choice))][:4]
    squeezes = [b.index for b in space.graph.blocks if b.component == "squeeze" and gates[b.index]][:2]
    assert len(taken) == 4
    assert len(squeezes) == 2
    eps = 1e-5
    for kind, indices in ((0, taken), (1, squeezes)):
        for index in indices:
            sides = []
            for sign in (1, -1):
                moved = [each.clone() for each in start]
                moved[kind][index] += sign * eps
                sides.append(float(loss(*moved).detach()))
            found = float((soft.grad, there.grad)[kind][index])
            assert found == pytest.approx((sides[0] - sides[1]) / (2 * eps), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_subnets_trim_exactly_and_cost_what_was_said(name: str) -> None:
    model, x = made(name)
    config = SupernetConfig(learn=("width", "depth", "kernel", "squeeze"))
    space = space_of(model, x[:1], config)
    for seed in range(2):
        units, gates = space.hard(drawn(space, seed))
        result = trim_verified(model.eval(), space.graph, units, x[:1], gates=gates)
        assert not result.refused
        assert result.check.passed
        said = hard_sizes(space.graph, units, gates)
        from compressor.costs import build

        assert float(build("params", space.graph)(said)) == sum(p.numel() for p in result.model.parameters())


def test_dropout_acts_where_it_is_asked_for() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 4)).train()
    x = torch.randn(3, 8)
    space = space_of(model, x[:1], SupernetConfig(learn=("width",)))
    subnets = Subnets(model, space.graph)
    units, gates = space.hard(space.largest)
    still = [subnets.forward(x, units, gates, dropout=False) for _ in range(2)]
    moving = [subnets.forward(x, units, gates, dropout=True) for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*moving)


def test_a_network_with_nothing_to_choose_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 2))
    graph: Graph = capture(model, torch.randn(1, 3, 8, 8), exclude=["*"])
    projector = Projector(graph, [], round_to=1)
    with pytest.raises(UnsupportedModelError, match="would not differ"):
        find_dimensions(model, projector, ALL, np.zeros(graph.n_units))


# ---- policies


def toy_space() -> Space:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
    return space_of(model, torch.randn(1, 4), SupernetConfig(learn=("width",)))


def test_policies_begin_with_the_most_weight_at_their_end() -> None:
    """Equation 7: softmax of rising values for the largest networks, of falling ones for the smallest."""
    torch.manual_seed(0)
    space = toy_space()
    assert space.lengths.tolist() == [8, 3]
    for largest in (True, False):
        policy = Policy(space, largest=largest, temperature=0.1)
        found = policy.probabilities().detach()
        assert torch.allclose(found.sum(1), torch.ones(2))
        assert (found[~space.valid] == 0).all()
        for row, n in zip(found, space.lengths.tolist(), strict=True):
            steps = row[:n].diff()
            assert (steps >= 0).all() if largest else (steps <= 0).all()
        first = policy.values[:, 0] if largest else policy.values[torch.arange(2), torch.tensor([7, 2])]
        assert torch.allclose(first, torch.full((2,), 0.1))
        expected = torch.softmax(policy.values.detach()[0] / 0.1, 0)
        assert torch.allclose(found[0], expected)


def test_draws_follow_the_probabilities_and_carry_gradients() -> None:
    torch.manual_seed(0)
    space = toy_space()
    policy = Policy(space, largest=True, temperature=0.1)
    with torch.no_grad():
        policy.values += torch.randn(2, 8) * 0.1
    counts = torch.zeros(2, 8)
    for _ in range(4000):
        weights, choices = policy.draw()
        counts[torch.arange(2), torch.from_numpy(choices)] += 1
    assert torch.allclose(counts / 4000, policy.probabilities().detach(), atol=0.03)
    assert torch.equal(weights.detach().argmax(1), torch.from_numpy(choices))
    assert torch.allclose(weights.detach().sum(1), torch.ones(2))
    (gradient,) = torch.autograd.grad((weights * torch.arange(8.0)).sum(), policy.values)
    assert (gradient[space.valid] != 0).all()
    assert (gradient[~space.valid] == 0).all()


def test_random_networks_stay_within_the_boundaries() -> None:
    space = toy_space()
    highest, lowest = torch.zeros(2, 8), torch.zeros(2, 8)
    highest[0, 5], highest[0, 7], highest[1, 2] = 0.6, 0.4, 1.0  # P(max >= j) > 0.5 for j up to 5
    lowest[0, 1], lowest[0, 3], lowest[1, 0] = 0.4, 0.6, 1.0  # P(min <= j) > 0.5 from j = 3 on
    allowed = within(space, highest, lowest, 0.5)
    assert allowed[0].nonzero().flatten().tolist() == [3, 4, 5]
    assert allowed[1].nonzero().flatten().tolist() == [0, 1, 2]
    assert within(space, None, None, 0.5).sum() == space.valid.sum()
    assert within(space, None, lowest, 0.5)[0].nonzero().flatten().tolist() == [3, 4, 5, 6, 7]
    for _ in range(50):
        choices = uniform(allowed)
        assert 3 <= choices[0] <= 5
    # Crossed boundaries: all between the two means.
    highest, lowest = torch.zeros(2, 8), torch.zeros(2, 8)
    highest[0, 2], highest[1, 2], lowest[0, 5], lowest[0, 6], lowest[1, 0] = 1.0, 1.0, 0.5, 0.5, 1.0
    allowed = within(space, highest, lowest, 0.5)
    assert allowed[0].nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    assert allowed.any(1).all()


def test_the_largest_choice_is_never_left_out_by_itself() -> None:
    """Equation 6 as printed would leave it out."""
    space = toy_space()
    highest, lowest = space.one_hot(space.largest), space.one_hot(space.smallest)
    assert torch.equal(within(space, highest, lowest, 0.5), space.valid)


def test_constraints_of_a_policy_are_costs_of_its_draw() -> None:
    from compressor.costs import Sizes, build

    space = toy_space()
    term = build("flops", space.graph)
    torch.manual_seed(0)
    policy = Policy(space, largest=False, temperature=0.1)
    weights, choices = policy.draw()
    units, gates = space.relaxed(weights.double())
    cost = term(Sizes(space.graph, units, gates))
    assert float(cost) == float(term(hard_sizes(space.graph, *space.hard(choices))))
    (gradient,) = torch.autograd.grad(cost, policy.values)
    assert (gradient[space.valid] != 0).any()
    assert Constraint(term, 1.0).name == "flops"
