"""DNArch: sizes, masks in the network and in the cost, decision, folding, live computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.costs import build
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.graph import capture
from compressor.masks import sigmoid
from compressor.models import load_model
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.methods.dnarch.method import Dnarch
from compressor.trim import plan, trim
from tests.search.search_models import EXAMPLE, NETWORKS, Residual, context, plain, residual


def session(
    model: nn.Module, shares: dict[str, float] | None = None, *, everything: bool = False, **settings: Any
) -> DnarchLearner:
    given = context(model, shares or {"flops": 0.5}, kernels=everything, resolution=everything)
    scores = np.zeros(given.graph.n_units), np.zeros(len(given.graph.blocks))
    return DnarchLearner(model, Projector(given.graph, given.constraints), DnarchConfig(**settings), scores)


def move(masks: DnarchLearner, width: float, depth: float = 0.0, rings: float = 0.0) -> None:
    with torch.no_grad():
        masks.width.offsets.sub_(width * torch.linspace(0.5, 1, len(masks.width), dtype=torch.float64))
        masks.depth.offsets.sub_(depth)
        masks.kernel.offsets.sub_(rings * torch.linspace(0.5, 1, len(masks.kernel), dtype=torch.float64))
        masks.resolution.offsets.sub_(0.7 * rings)
        for rows in masks.rows:
            rows.clamp_()


def test_the_search_starts_at_the_full_size() -> None:
    masks = session(residual())
    graph = masks.graph
    assert torch.equal(masks.sizes().units, torch.ones(graph.n_units, dtype=torch.float64))
    assert torch.equal(masks.sizes().gates, torch.ones(len(graph.blocks), dtype=torch.float64))
    for group in graph.groups:
        units = masks.width.masks()[torch.from_numpy(group.units)]
        assert units.min().item() == pytest.approx(0.85)


def test_lengths_of_axes_are_the_masks_sizes() -> None:
    masks = session(residual())
    move(masks, 0.8, 0.9)
    sizes, weights = masks.width.sizes().detach(), masks.sizes()
    for row, size in zip(masks.width.rows, sizes.tolist(), strict=True):
        assert weights.units.detach()[torch.from_numpy(row)].sum().item() == pytest.approx(size)
    assert weights.gates.detach().sum().item() == pytest.approx(masks.depth.sizes().item())
    gates = weights.gates.detach()[torch.from_numpy(masks.depth.rows[0])].tolist()
    size = masks.depth.sizes().item()
    assert gates == pytest.approx([min(max(size - i, 0), 1) for i in range(len(gates))])


def test_the_cost_has_a_gradient_at_the_full_size() -> None:
    masks = session(residual())
    cost = masks.multipliers.constraints[0].term(masks.sizes())
    cost.backward()
    assert (masks.width.offsets.grad > 0).all()  # type: ignore[operator]
    assert (masks.depth.offsets.grad > 0).all()  # type: ignore[operator]


def test_blocks_are_removed_from_the_end_of_the_row() -> None:
    masks = session(residual(), learn=("depth",), order="none")
    move(masks, 0.0, 1.2)
    kept = masks.depth.kept()[0]
    assert 0 < kept < 3
    assert masks.depth.masks().gt(0).tolist() == [i < kept for i in range(3)]


def test_where_blocks_leave_a_gap_another_block_takes_the_place_of_widths() -> None:
    model = load_model("resnet20_cifar", weights="none").model
    x = torch.randn(2, 3, 32, 32)
    graph = capture(model, x)
    flops = build("flops", graph)
    projector = Projector(graph, [Constraint(flops, 0.57 * flops.original)])
    masks = DnarchLearner(model, projector, DnarchConfig(), (np.zeros(graph.n_units), np.zeros(len(graph.blocks))))
    with torch.no_grad():
        masks.depth.offsets.fill_(-0.33)  # three of seven blocks: 53 % with all channels, 65 % with another block
    assert masks.depth.kept().tolist() == [3]
    decision = masks.decide()
    assert decision.gates is not None
    share = projector.costs(decision.units, decision.gates)[0] / projector.limits[0]
    assert 0.97 <= share <= 1
    assert decision.gates.sum() == 4


def test_what_matters_least_goes_first() -> None:
    model = plain()
    given = context(model, {"flops": 0.5})
    scores = np.arange(given.graph.n_units, dtype=np.float64), np.zeros(0)
    masks = DnarchLearner(model, Projector(given.graph, given.constraints), DnarchConfig(), scores)
    kept = masks.decide().units[:-1]
    for group in given.graph.groups:
        n = int(kept[group.units].sum())
        assert kept[group.units][-n:].all()  # scores grow along the group


def test_learning_one_component_leaves_the_other_whole() -> None:
    result = Dnarch().run(
        context(residual(), {"flops": 0.6}, options={"epochs": 1, "learn": "width", "least_steps": 0})
    )
    assert result.gates is not None
    assert result.gates.all()
    given = context(residual(), {"flops": 0.75}, options={"epochs": 1, "batch_size": 16, "learn": "depth"})
    result = Dnarch().run(given)
    assert result.units.all()
    assert result.gates is not None
    assert not result.gates.all()


@pytest.mark.parametrize("penalty", [None, 5.0])
def test_the_search_itself_comes_close_to_the_budget(penalty: float | None) -> None:
    options = {"epochs": 16, "batch_size": 16, "penalty": penalty, "least_steps": 0}
    result = Dnarch().run(context(residual(), {"flops": 0.5}, options=options))
    assert result.history[-1]["flops"] == pytest.approx(0.5, abs=0.06)  # before any projection


def shares_left(priced: bool, steps: int = 60) -> list[float]:
    """What is left of each row of widths where nothing but the budget pulls."""
    masks = session(residual(), {"flops": 0.4}, learn=("width",), every=1, priced=priced)
    (adam,) = masks.optimizers().values()
    for step in range(steps):
        masks.before_step(step, 3 * steps)
        adam.zero_grad()
        penalty = masks.penalty()
        assert penalty is not None
        penalty.backward()  # type: ignore[no-untyped-call]
        adam.step()
        masks.after_step(step, 3 * steps)
    return (masks.width.sizes() / masks.width.counts).tolist()


def test_where_the_task_has_no_say_all_masks_shrink_alike() -> None:
    alike, by_cost = shares_left(priced=True), shares_left(priced=False)
    assert max(alike) - min(alike) < 0.05
    assert max(by_cost) - min(by_cost) > 0.3  # the stream is gone, as it saves most
    assert max(alike) < 0.9


@pytest.mark.parametrize(("share", "steps"), [(0.3, 20), (0.5, 20), (0.75, 10), (0.9, 4), (1.0, 1)])
def test_the_less_the_cost_has_to_fall_the_sooner_it_is_asked_for(share: float, steps: int) -> None:
    masks = session(residual(), {"flops": share}, every=1, reach=0.2)
    original, limit = (c.term.original for c in masks.projector.constraints), masks.projector.constraints[0].limit
    asked = []
    for step in range(40):
        masks.before_step(step, 100)
        asked.append(masks.multipliers.target(0))
        masks.after_step(step, 100)
    assert asked[0] == pytest.approx(next(original))
    assert sum(target > limit * 1.001 for target in asked) == pytest.approx(steps, abs=1)
    assert np.diff(asked).max() <= 0


def test_the_fixed_penalty_is_the_papers_and_may_rise() -> None:
    masks = session(residual(), penalty=2.0, penalty_ramp=0.5, settle=0.0, every=1)
    masks.before_step(0, 8)
    first = masks.penalty()
    masks.before_step(3, 8)
    full = masks.penalty()
    assert first is not None
    assert full is not None
    assert full.item() == pytest.approx(2.0 * (1 / 0.5 - 1) ** 2)
    assert first.item() == pytest.approx(full.item() / 4)


def test_offsets_stay_within_their_bounds() -> None:
    masks = session(residual())
    with torch.no_grad():
        masks.width.offsets.fill_(-9.0)
        masks.depth.offsets.fill_(9.0)
    masks.before_step(0, 10)
    masks.after_step(0, 10)
    assert masks.width.offsets.eq(sigmoid.lowest(25.0)).all()
    assert masks.depth.offsets.eq(sigmoid.highest(8.0)).all()
    assert masks.width.kept().min() >= 1


def test_budgets_below_the_bounds_name_the_number() -> None:
    with pytest.raises(UnreachableBudgetError, match="smallest"):
        session(residual(), {"flops": 0.005})
    session(residual(), {"flops": 0.005}, width_tau=50.0, depth_tau=16.0)  # steeper masks can be smaller


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learn": "colour"}, "cannot learn 'colour'; it learns width, depth, kernel, resolution"),
        ({"learn": ""}, "learn is empty"),
        ({"order": "alphabet"}, "order must be one of"),
        ({"optimizer": "luck"}, "optimizer must be one of sgd, adamw, not 'luck'"),
        ({"depth_over": "galaxy"}, "depth_over must be one of"),
        ({"width_tau": 2.0}, "above 5"),
        ({"penalty": -1.0}, "above zero"),
        ({"penalty_ramp": 0.5}, "beside a penalty"),
        ({"settle": 1.0}, "from 0 to below 1"),
        ({"every": 0}, "every must be a whole number"),
    ],
)
def test_unusable_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DnarchConfig.from_options(settings)


def test_a_component_that_the_model_lacks_is_named() -> None:
    with pytest.raises(UsageError, match="Plain has no depth to learn: it has no residual block"):
        session(plain(), learn=("width", "depth"))
    assert DnarchConfig().components(session(plain()).graph) == {"width"}


def test_depth_by_stage_gives_each_stream_its_own_row() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(residual()[:3], nn.Conv2d(16, 8, 1), *residual_tail())
    masks = session(model, {"flops": 0.9}, depth_over="stage", learn=("depth",))
    assert sorted(len(row) for row in masks.depth.rows) == [2, 2]
    assert len(session(model, {"flops": 0.8}).depth.rows) == 1


def residual_tail() -> list[nn.Module]:
    return [Residual(8, 8), Residual(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]


# ---- the masks in the network


def soft_output(masks: DnarchLearner, model: nn.Module, inputs: Tensor, rest: bool = False) -> Tensor:
    with masks.masked(*(masks.fixed() if rest else (mask.float() for mask in masks.masks()))):
        output: Tensor = model(inputs)
    return output


@pytest.mark.parametrize(("network", "rings"), [*((n, 0.0) for n in NETWORKS), ("plain", 1.0), ("residual", 1.3)])
def test_folded_and_trimmed_computes_what_the_soft_masks_did(network: str, rings: float) -> None:
    """No retraining: the trimmed network is the one the search trained, mask values included."""
    model = NETWORKS[network]().eval()
    masks = session(model, {"flops": 0.9}, everything=rings > 0)
    move(masks, 0.7, 0.8, rings)
    inputs = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        expected = soft_output(masks, model, inputs, rest=True)
        kept, gates = (mask.gt(0).numpy() for mask in masks.masks())
        assert not kept.all()
        decision = masks.decide()
        masks.fold_(decision)
        found = trim(model, plan(model, masks.graph, kept, gates))(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def total(gradient: Tensor | None) -> Tensor:
    """Dead blocks have no gradient when they are not computed, and zeros when they are."""
    return torch.zeros((), dtype=torch.float64) if gradient is None else gradient.sum().double()


@pytest.mark.parametrize(("network", "pace"), [*((n, 0.0) for n in NETWORKS), ("plain", 2.4), ("residual", 2.4)])
def test_live_computes_what_masks_compute(network: str, pace: float) -> None:
    model = NETWORKS[network]()
    masks = session(model, {"flops": 0.9}, everything=pace > 0)
    assert masks.live is not None
    inputs = torch.randn(4, 3, 8, 8)
    for width, depth in ((0.0, 0.0), (0.5, 0.0), (0.4, 0.7), (-0.3, 0.0), (-0.5, -1.0)):
        move(masks, width, depth, pace * width)
        found = {}
        for way in ("masked", "live"):
            offsets = [rows.offsets for rows in masks.rows]
            for parameter in (*model.parameters(), *offsets):
                parameter.grad = None
            if way == "live":
                output = masks.forward(model, inputs)
            else:
                output = soft_output(masks, model, inputs)
            output.square().sum().backward()
            # There, the gradient of the widths is an estimate.
            learned = offsets[network == "attention" :]
            compared = [p.grad for p in (*model.parameters(), *learned)]
            found[way] = (output.detach(), compared)
        torch.testing.assert_close(found["live"][0], found["masked"][0], rtol=1e-4, atol=1e-5)
        for a, b in zip(found["live"][1], found["masked"][1], strict=True):
            torch.testing.assert_close(total(a), total(b), rtol=1e-3, atol=1e-3)
    assert masks.live.works
    assert masks.live.builds == 5


def test_live_leaves_the_model_as_it_was() -> None:
    model = residual()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks = session(model, {"flops": 0.9})
    move(masks, 0.6, 0.9)
    masks.forward(model, EXAMPLE.repeat(4, 1, 1, 1))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model(EXAMPLE).shape == (1, 4)


def test_live_computes_less() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = residual()
    masks = session(model, {"flops": 0.9})
    counts = []
    for width, depth in ((0.0, 0.0), (0.8, 0.0), (0.0, 1.2)):
        move(masks, width, depth)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            masks.forward(model, EXAMPLE)
        counts.append(counter.get_total_flops())
        with torch.no_grad():
            cost = masks.projector.costs(
                np.append(masks.width.masks().gt(0).numpy(), True), masks.depth.masks().gt(0).numpy()
            )
        assert 2 * cost[0] <= counts[-1] <= 1.05 * 2 * cost[0]  # with what may soon be live again
    assert counts[0] > counts[1] > counts[2]


def test_where_live_fails_masks_take_over(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    model = residual().eval()
    masks = session(model, {"flops": 0.9})
    move(masks, 0.6, 0.9)
    assert masks.live is not None

    def broken(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(masks.live, "_build", broken)
    with torch.no_grad():
        torch.testing.assert_close(masks.forward(model, EXAMPLE), soft_output(masks, model, EXAMPLE))
    assert not masks.live.works
    assert "shapes differ" in caplog.text


def test_a_live_network_stays_as_long_as_little_in_it_is_dead() -> None:
    model = residual().eval()
    masks = session(model, {"flops": 0.9})
    assert masks.live is not None
    builds = []
    with torch.no_grad():
        for _ in range(40):
            masks.width.offsets.sub_(0.01)
            torch.testing.assert_close(masks.forward(model, EXAMPLE), soft_output(masks, model, EXAMPLE))
            builds.append(masks.live.builds)
    assert 4 < builds[-1] < 25
    with torch.no_grad():
        masks.width.offsets.add_(0.02)  # what may soon be live again was left in
        masks.forward(model, EXAMPLE)
    assert masks.live.builds == builds[-1]


def test_a_run_goes_on_with_the_same_live_network() -> None:
    model = residual().eval()
    masks, again = session(model, {"flops": 0.9}), session(model, {"flops": 0.9})
    assert masks.live is not None
    assert again.live is not None
    with torch.no_grad():
        for by in (0.3, 0.01):
            masks.width.offsets.sub_(by)
            expected = masks.forward(model, EXAMPLE)
        again.width.offsets.copy_(masks.width.offsets)
        again.live.load_state_dict(masks.live.state_dict())
        assert torch.equal(again.forward(model, EXAMPLE), expected)


@pytest.mark.parametrize(
    ("epochs", "settings", "steps"), [(1, {}, 1), (40, {}, 48), (43, {}, None), (22, {"every": 1}, None)]
)
def test_too_few_steps_for_masks_are_told_of(epochs: int, settings: dict[str, Any], steps: int | None) -> None:
    told: list[str] = []
    given = context(
        residual(), {"flops": 0.5}, options={"epochs": epochs, "batch_size": 16, "least_steps": 0, **settings}
    )
    given.tell = told.append
    each = len(given.data.train) // 16
    Dnarch().run(given)
    counted = [text for text in told if "masks learn in" in text]
    assert bool(counted) == (steps is not None), (each, counted)
    assert steps is None or f"in {steps} step" in counted[0]
