"""FiGS: what its samples, multipliers and decision promise."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data import Data, Subsampled
from compressor.errors import UsageError
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.decision import decide
from compressor.search.methods.figs.learner import FigsLearner, Multipliers
from compressor.search.methods.figs.method import Figs
from compressor.search.methods.figs.sampling import sample
from compressor.search.training.learner import learn
from compressor.train import TrainConfig, Trainer
from tests.search.search_models import EXAMPLE, NETWORKS, context, data, plain, residual


def session(network: str = "residual", shares: dict[str, float] | None = None, **settings: object) -> FigsLearner:
    model = NETWORKS[network]()
    given = context(model, shares or {"flops": 0.5})
    return FigsLearner(model, Projector(given.graph, given.constraints), FigsConfig(**settings))  # type: ignore[arg-type]


def test_a_mask_is_on_as_often_as_its_probability_says() -> None:
    torch.manual_seed(0)
    for probability in (0.05, 0.3, 0.5, 0.924):
        logits = torch.full((40_000,), float(torch.logit(torch.tensor(probability))))
        drawn = sample(logits, 0.001, 0.5)
        assert float((drawn > 0.5).float().mean()) == pytest.approx(probability, abs=0.01)
        assert float(((drawn > 0.01) & (drawn < 0.99)).float().mean()) < 0.01, "nearly all are hard"


def test_the_gradient_is_that_of_the_softer_mask() -> None:
    torch.manual_seed(0)
    logits = torch.linspace(-3, 3, 50, dtype=torch.float64).requires_grad_()
    u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    torch.manual_seed(0)
    sample(logits, 0.001, 0.5).sum().backward()
    soft = torch.sigmoid((logits.detach() + u.log() - torch.log1p(-u)) / 0.5)
    torch.testing.assert_close(logits.grad, soft * (1 - soft) / 0.5)


def test_at_its_own_temperature_the_gradient_is_exact() -> None:
    def through(z: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return sample(z, 0.7, 0.7)

    logits = torch.linspace(-2, 2, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(through, (logits,))


def test_the_search_starts_at_a_keep_probability_of_924_in_1000() -> None:
    masks = session()
    units = masks.probabilities()[: masks.graph.n_units]
    assert float(units.detach().min()) == pytest.approx(0.924, abs=1e-3)


def test_no_group_is_ever_empty() -> None:
    masks = session()
    with torch.no_grad():
        masks.logits.fill_(-8.0)
        best = [int(group.units[0]) for group in masks.graph.groups]
        masks.logits[best] = -7.0
    drawn = masks._never_empty(torch.zeros(masks.graph.n_units))
    for group, unit in zip(masks.graph.groups, best, strict=True):
        assert drawn[torch.from_numpy(group.units)].sum() == 1
        assert drawn[unit] == 1


def test_masks_act_in_the_forward_pass_and_leave_no_trace() -> None:
    model = plain()
    model.eval()
    given = context(model, {"flops": 0.5})
    masks = FigsLearner(model, Projector(given.graph, given.constraints), FigsConfig())
    names = list(model.state_dict())
    whole = model(EXAMPLE)
    with torch.no_grad():
        masks.logits.fill_(0.0)
    torch.manual_seed(1)
    masked = masks.forward(model, EXAMPLE)
    assert not torch.allclose(whole, masked)
    assert torch.equal(whole, model(EXAMPLE))
    assert list(model.state_dict()) == names
    masked.sum().backward()
    assert masks.logits.grad is not None
    assert masks.logits.grad.abs().sum() > 0


def test_multipliers_grow_above_the_target_and_fall_below_it() -> None:
    given = context(residual(), {"flops": 0.5, "params": 0.5})
    multipliers = Multipliers(given.constraints, [c.term.original for c in given.constraints])
    multipliers.progress = 1.0
    multipliers.ratios = [1.5, 0.5]
    for _ in range(3):
        multipliers.step()
    assert multipliers.values[0] == pytest.approx(3 * multipliers.rate * 0.5)
    assert multipliers.values[1] == 0.0, "never below zero"
    multipliers.ratios = [0.8, 1.2]
    before = list(multipliers.values)
    multipliers.step()
    assert multipliers.values[0] < before[0]
    assert multipliers.values[1] > before[1]
    again = Multipliers(given.constraints, [1.0, 1.0])
    again.load_state_dict(multipliers.state_dict())
    assert (again.values, again.ratios, again.progress) == (
        multipliers.values,
        multipliers.ratios,
        multipliers.progress,
    )


def test_costs_are_told_as_they_are_while_targets_move() -> None:
    given = context(residual(), {"flops": 0.5, "params": 0.4})
    terms = {c.name: c.term for c in given.constraints}
    masks = Figs().learner(given)
    told = masks.log()
    assert told == pytest.approx({name: float(t(masks.expected())) / t.original for name, t in terms.items()}, rel=1e-5)
    for step in range(4):
        masks.before_step(step, 10)
        now = {name: float(term(masks.expected())) / term.original for name, term in terms.items()}
        penalty = masks.penalty()
        assert penalty is not None
        masks.after_step(step, 10)
        assert masks.log() == pytest.approx(now, rel=1e-5)
        masks.multipliers.load_state_dict(masks.multipliers.state_dict())
        assert masks.log() == pytest.approx(now, rel=1e-5)
        with torch.no_grad():
            masks.logits -= 0.3


def test_a_relative_rate_takes_a_large_multiplier_back_as_fast_as_a_small_one() -> None:
    given = context(residual(), {"flops": 0.5})
    multipliers = Multipliers(given.constraints, [1.0], relative_rate=0.2)
    for value, ratio, expected in ((0.1, 1.5, 0.125), (4.0, 0.5, 3.6), (0.01, 0.5, 0.0)):
        multipliers.values, multipliers.ratios = [value], [ratio]
        multipliers.step()
        assert multipliers.values[0] == pytest.approx(expected)


def test_the_target_falls_from_the_start_to_the_limit() -> None:
    given = context(residual(), {"flops": 0.5})
    (constraint,) = given.constraints
    multipliers = Multipliers(given.constraints, [2 * constraint.limit])
    targets = []
    for progress in (0.0, 0.5, 1.0, 1.5):
        multipliers.progress = progress
        targets.append(multipliers.target(0) / constraint.limit)
    assert targets == pytest.approx([2.0, 1.5, 1.0, 1.0])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_any_logits_are_decided_under_the_budgets_and_close_to_one(network: str, share: float) -> None:
    given = context(NETWORKS[network](), {"flops": share, "params": 0.9})
    graph = given.graph
    projector = Projector(graph, given.constraints)
    source = torch.Generator().manual_seed(0)
    for spread in (0.0, 1.0, 6.0):
        logits = spread * torch.randn(graph.n_units, generator=source, dtype=torch.float64)
        blocks = spread * torch.randn(len(graph.blocks), generator=source, dtype=torch.float64)
        units, gates = decide(projector, logits, blocks)
        ratios = projector.costs(units, gates) / projector.limits
        assert (ratios <= 1).all()
        assert ratios.max() > 0.9


def test_the_decision_keeps_the_most_probable_units() -> None:
    given = context(plain(), {"flops": 0.5})
    projector = Projector(given.graph, given.constraints)
    logits = torch.randn(given.graph.n_units, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    units, _ = decide(projector, logits, torch.zeros(0, dtype=torch.float64))
    for group in given.graph.groups:
        kept, values = units[group.units], logits.numpy()[group.units]
        if not kept.all():
            assert values[kept].min() >= values[~kept].max()


def test_the_expected_cost_reaches_the_budget_during_the_search() -> None:
    options = {"epochs": 12, "batch_size": 16, "depth": False}
    result = Figs().run(context(plain(), {"flops": 0.5}, options=options))
    shares = [entry["flops"] for entry in result.history]
    assert shares[0] > 0.6
    assert shares[-1] == pytest.approx(0.5, abs=0.05)


def test_expected_sizes_of_hard_probabilities_are_the_sizes() -> None:
    masks = session()
    random = np.random.default_rng(0)
    units, gates = masks.graph.all_units(), random.random(len(masks.graph.blocks)) < 0.5
    for group in masks.graph.groups:
        units[group.units[: len(group) // 2]] = False
    hard = np.concatenate([units[:-1], gates])
    with torch.no_grad():
        masks.logits.copy_(torch.from_numpy(np.where(hard, 60.0, -60.0)))
    for constraint in masks.projector.constraints:
        expected = float(constraint.term(masks.expected()).detach())
        assert expected == pytest.approx(float(constraint.term(hard_sizes(masks.graph, units, gates))), rel=1e-6)


def test_bad_options() -> None:
    with pytest.raises(UsageError, match="no option temprature"):
        Figs().run(context(plain(), {"flops": 0.5}, options={"temprature": 1}))
    with pytest.raises(UsageError, match="oneshot"):
        Figs().run(context(plain(), {"flops": 0.5}, data=None))


def test_a_killed_search_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Fuse:
        """A progress display that gives up after some steps."""

        def __init__(self, after: int) -> None:
            self.left = after

        def start(self, total: int, done: int) -> None:
            pass

        def advance(self, step: int, **_: object) -> None:
            self.left -= 1
            if not self.left:
                raise Stop

        def close(self) -> None:
            pass

    options = {"epochs": 4, "batch_size": 16}
    whole_model = residual()
    whole = Figs().run(context(whole_model, {"flops": 0.5}, data=data(), options=dict(options)))
    path = tmp_path / "search.safetensors"
    model = residual()
    with pytest.raises(Stop):
        Figs().run(
            context(model, {"flops": 0.5}, options=dict(options), checkpoint=path, progress=Fuse(15)),
        )
    assert path.exists()
    model = residual()
    again = Figs().run(context(model, {"flops": 0.5}, options=dict(options), checkpoint=path))
    np.testing.assert_array_equal(whole.units, again.units)
    assert torch.equal(whole.priority, again.priority)
    assert whole.history == again.history
    state = model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole_model.state_dict().items())


def test_what_is_learned_from_the_original_alone_ignores_the_labels() -> None:
    def searched(distill: float, shift: int) -> torch.Tensor:
        model, given = plain(), data()
        given.train.targets = (given.train.targets + shift) % 4
        options = {"epochs": 2, "batch_size": 32, "least_steps": 0}
        given_all = {"data": given, "options": options, "teacher": copy.deepcopy(model), "distill": distill}
        whole = context(model, {"flops": 0.5}, **given_all)
        return Figs().run(whole).priority

    assert torch.equal(searched(1.0, 0), searched(1.0, 1))
    assert not torch.equal(searched(0.5, 0), searched(0.5, 1))


def test_training_can_be_told_more_and_look_at_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[TrainConfig, int]] = []

    class Noting(Trainer):
        def __init__(self, model: object, given: Data, config: TrainConfig, **more: object) -> None:
            seen.append((config, len(given.train)))
            super().__init__(model, given, config, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("compressor.search.training.learner.Trainer", Noting)
    model = NETWORKS["residual"]()
    given = context(model, {"flops": 0.5})
    config = FigsConfig(epochs=2, batch_size=16)
    masks = FigsLearner(model, Projector(given.graph, given.constraints), config)
    whole = data()
    share = replace(whole, train=Subsampled(whole.train, 0.5))
    result = learn(given, share, config, masks, schedule="steps", milestones=(0.6,), decay=0.2, grad_clip=1.0, lr=0.02)
    assert {count for _, count in seen} == {len(whole.train) // 2}
    assert all((c.schedule, c.milestones, c.grad_clip, c.lr) == ("steps", (0.6,), 1.0, 0.02) for c, _ in seen)
    assert result.history
    with pytest.raises(UsageError, match="milestones"):
        learn(given, share, config, masks, schedule="steps")
