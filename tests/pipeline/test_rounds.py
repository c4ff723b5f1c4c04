"""Several searches as one job: budgets, report and architecture are those of the first original."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.budget import parse_budgets
from compressor.costs import build
from compressor.data import Data, from_loaders
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.models import load_model
from compressor.pipeline.rounds import describe_rounds, round_settings, run_rounds
from compressor.pipeline.stages import Pipeline
from compressor.storage.job import Job
from tests.api_models import EXAMPLE, loader, net, same

QUICK = compressor.Training(search_epochs=1, finetune_epochs=1, batch_size=32, tune="none")
#: Bytes of the number that stands in for a removed branch, which the memory term leaves out.
ZERO = 4
BUDGETS = {
    "half": {"flops": "50%"},
    "all of it": {"flops": "100%"},
    "more": {"flops": "200%", "params": "150%"},
    "together": {"flops": "80%", "params": "70%", "memory": "90%"},
    "amounts": {"params": "9k"},
}


class Signals(nn.Module):
    """Signals (B, 2, 24) to four classes, with a residual branch of strided and depthwise convolutions around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(2, 12, 5, padding=2), nn.BatchNorm1d(12)
        self.deep, self.point = nn.Conv1d(12, 12, 3, padding=1, groups=12), nn.Conv1d(12, 12, 1)
        self.down, self.head = nn.Conv1d(12, 16, 3, 2, padding=1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.point(self.deep(x).relu())
        out: Tensor = self.head(self.down(x).relu().mean(2))
        return out


def signals() -> tuple[nn.Module, Tensor, Data]:
    torch.manual_seed(0)
    inputs, targets = torch.randn(96, 2, 24), torch.randint(4, (96,))
    batches = DataLoader(TensorDataset(inputs, targets), batch_size=16)
    return Signals(), torch.randn(2, 2, 24), from_loaders(batches, batches)


def images() -> tuple[nn.Module, Tensor, Data]:
    return net(), EXAMPLE, from_loaders(loader(), loader(32, seed=1))


def shipped(name: str, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor, Data]:
    model = load_model(name, weights="none", example_shape=shape, num_classes=4, seed=0).model
    torch.manual_seed(0)
    inputs, targets = torch.randn(64, *shape), torch.randint(4, (64,))
    batches = DataLoader(TensorDataset(inputs, targets), batch_size=32)
    return model, torch.randn(2, *shape), from_loaders(batches, batches)


def costs_of(model: nn.Module, x: Tensor) -> dict[str, float]:
    graph = capture(model, x)
    return {cost: build(cost, graph).original for cost in ("flops", "params", "memory")}


def check(result: compressor.Result, original: nn.Module, x: Tensor, budgets: dict[str, str], search: str) -> None:
    """What holds for every job of rounds."""
    before, after, report = costs_of(original, x), costs_of(result.model, x), result.report
    for (cost, text), said in zip(budgets.items(), report.budgets, strict=True):
        limit = next(iter(parse_budgets({cost: text}))).limit(before[cost])
        assert (said.cost, said.asked, said.met) == (cost, text, True)
        assert said.original == pytest.approx(before[cost])
        assert said.limit == pytest.approx(limit)
        assert said.reached == pytest.approx(after[cost], abs=ZERO if cost == "memory" else 0)
        assert said.reached <= limit * (1 + 1e-9)
    for entry in report.costs:
        assert entry.original == pytest.approx(before[entry.name])
        assert entry.reached == pytest.approx(after[entry.name], abs=ZERO if entry.name == "memory" else 0)
    assert report.search == search
    fresh: Any = result.architecture.apply_(copy.deepcopy(original))
    fresh.load_state_dict(result.model.state_dict())
    assert same(fresh.eval()(x), result.model(x))
    modules, old = dict(result.model.named_modules()), dict(original.named_modules())
    for width in report.widths:
        assert width.before == old[width.layer].weight.shape[0]  # type: ignore[union-attr,index]
        if width.after:
            assert width.after == modules[width.layer].weight.shape[0]  # type: ignore[union-attr,index]
    for choice in report.choices:
        conv: Any = old[choice.name]
        assert choice.before.split(" ")[0] == "x".join(map(str, conv.kernel_size))
    for name, kernel in report.operators.items():
        new: Any = modules[name]
        assert (list(new.kernel_size), list(new.dilation)) == (kernel.kernel_size, kernel.dilation)
    for change in report.attributes_changed:
        has = getattr(old[change.module], change.attribute)
        assert change.before == (list(has) if isinstance(has, tuple) else has)
        assert change.before != change.after
    weights = next(size for size in report.sizes if size.name == "Weights")
    assert weights.original_bytes == sum(p.numel() * p.element_size() for p in original.parameters())
    assert weights.compressed_bytes == sum(p.numel() * p.element_size() for p in result.model.parameters())
    assert [row.name for row in report.probabilities] == [choice.name for choice in report.choices]
    assert report.verification is not None
    assert report.verification.passed
    assert [entry["step"] for entry in report.history] == sorted(entry["step"] for entry in report.history)
    assert type(report).from_json(report.to_json()) == report


CASES = [
    pytest.param(search, make, asked, marks=[] if asked in quick else pytest.mark.slow, id=f"{search}-{asked}")
    for search, make, quick in (
        ("dash,figs", images, ("all of it", "together")),
        ("dash,oneshot", signals, ("half", "amounts")),
    )
    for asked in BUDGETS
]


@pytest.mark.parametrize(("search", "make", "asked"), CASES)
def test_budgets_and_report_are_those_of_the_first_original(search: str, make: Any, asked: str) -> None:
    model, x, data = make()
    budgets = {"params": "900"} if asked == "amounts" and make is signals else BUDGETS[asked]
    result = compressor.compress(model, x, budgets, data=data, search=search, training=QUICK)
    check(result, model, x, budgets, search)
    assert result.report.trained_epochs == (3 if search == "dash,figs" and asked not in ("all of it", "more") else 2)
    assert result.report.accuracy is not None
    assert None not in (result.report.accuracy.before, result.report.accuracy.after_finetune)


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["half", "together", "all of it"])
@pytest.mark.parametrize("search", ["dash,figs", "dash,dnarch", "dash,oneshot"])
@pytest.mark.parametrize(
    ("name", "shape"), [("resnet20_cifar", (3, 16, 16)), ("wrn_16_1", (3, 16, 16)), ("wrn1d", (2, 48))]
)
def test_shipped_networks(name: str, shape: tuple[int, ...], search: str, asked: str) -> None:
    model, x, data = shipped(name, shape)
    result = compressor.compress(model, x, BUDGETS[asked], data=data, search=search, training=QUICK)
    check(result, model, x, BUDGETS[asked], search)


def settings(search: str = "dash,figs", budget: str = "50%", **options: Any) -> Any:
    how = {"finetune_epochs": 1, "train_epochs": 1, "batch_size": 32, "tune": "none", **options}
    return round_settings(search, None, epochs=1, budgets=parse_budgets({"flops": budget}), **how)


def test_the_first_original_teaches_and_is_what_scores_are_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    import compressor.pipeline.training as training
    import compressor.search.training.learner as learner

    teachers: list[Any] = []
    for place in (training, learner):

        class Noting(place.Trainer):  # type: ignore[name-defined,misc]
            def __init__(self, *args: Any, teacher: Any = None, **more: Any) -> None:
                teachers.append(teacher)
                super().__init__(*args, teacher=teacher, **more)

        monkeypatch.setattr(place, "Trainer", Noting)
    model, x, data = images()
    done = run_rounds(model, x, settings(distill=0.5), data=data)
    first = done[0]
    assert teachers[0] is None  # of the training of the original itself
    assert len(teachers) >= 4
    assert all(teacher is first.model for teacher in teachers[1:])
    assert done[1].scores.before == first.scores.before
    assert done[1].scores.after_finetune is not None
    kernel = first.model.stem.kernel_size  # type: ignore[union-attr]
    assert kernel == (3, 3)
    report = describe_rounds(done, name="net")
    assert report.accuracy is not None
    assert report.accuracy.before == first.scores.before


@pytest.mark.parametrize("search", ["dash,figs", pytest.param("dash,oneshot", marks=pytest.mark.slow)])
def test_stopped_after_any_stage_of_any_round_it_ends_the_same(
    tmp_path: Path, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash right after each thing that is stored; kills at any moment are tested with processes."""

    def run(job: Job | None) -> list[Pipeline]:
        model, x, data = images()
        return run_rounds(model, x, settings(search), data=data, job=job)

    whole = run(None)
    store, stored = Job.store, list[str]()

    def once(self: Job, name: str, *args: Any) -> Any:
        store(self, name, *args)
        stored.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Job, "store", once)
    again = None
    for _ in range(30):
        try:
            with Job.open(tmp_path, {"a": 1}) as job:
                again = run(job)
            break
        except KeyboardInterrupt:
            continue
    assert again is not None
    assert len(set(stored)) == len(stored)
    assert {"round1.train", "round1.search", "search", "finetune"} <= set(stored)
    assert [each.architecture for each in again] == [each.architecture for each in whole]
    for one, two in zip(again, whole, strict=True):
        assert one.scores == two.scores
        assert all(
            torch.equal(a, b) for a, b in zip(one.compressed.parameters(), two.compressed.parameters(), strict=True)
        )
    assert describe_rounds(again, name="n").history == describe_rounds(whole, name="n").history


def test_a_network_that_is_within_the_budget_after_the_first_round_is_still_fine_tuned() -> None:
    model, x, data = images()
    done = run_rounds(model, x, settings(budget="300%"), data=data)
    assert done[1].nothing_to_do
    assert done[1].scores.after_finetune is not None
    assert not any(
        torch.equal(a, b) for a, b in zip(done[0].compressed.parameters(), done[1].compressed.parameters(), strict=True)
    )


def test_two_calls_make_one_architecture_too(tmp_path: Path) -> None:
    model, x, data = images()
    first = compressor.compress(model, x, {"flops": "100%"}, data=data, search="dash", training=QUICK)
    second = compressor.compress(first.model, x, {"flops": "60%"}, data=data, search="figs", training=QUICK)
    third = compressor.compress(second.model, x, {"params": "80%"}, search="oneshot")
    third.save(tmp_path)
    loaded = compressor.load(tmp_path, model=net())
    assert same(loaded(x), third.model(x))
    fresh: Any = third.architecture.apply_(net())
    fresh.load_state_dict(third.model.state_dict())
    assert same(fresh.eval()(x), third.model(x))


def test_each_method_has_its_own_options() -> None:
    model, x, data = images()
    options = {"dash": {"kernel_sizes": (3, 5), "dilations": (1,)}, "figs": {"tau": 0.02}}
    result = compressor.compress(
        model, x, {"flops": "300%"}, data=data, search=" dash , figs ", options=options, training=QUICK
    )
    assert result.report.search == "dash,figs"
    assert {row.alternatives[-1] for row in result.report.probabilities} == {"5x5 d1"}


@pytest.mark.parametrize(
    ("search", "more", "said"),
    [
        ("figs,dash", {}, "figs only makes networks smaller"),
        ("oneshot,figs", {}, "oneshot only makes networks smaller"),
        ("dash,dash", {}, "names a method twice"),
        ("dash,fgs", {}, "fgs"),
        ("dash,", {}, "search method"),
        ("dash,figs", {"options": {"tau": 0.1}}, "by method"),
        ("dash,figs", {"options": {"dnarch": {}}}, "dnarch, which is none"),
        ("dash,figs", {"options": {"dash": {"tau": 0.1}}}, "tau"),
        ("dash,figs", {"importance": "l1"}, "ranks by"),
        ("dash,dnarch", {"options": {"dnarch": {"grow": 2}}}, "grows in a search alone"),
        ("dash,oneshot", {"data": None}, "learns from data"),
    ],
)
def test_what_cannot_be_is_refused_by_name(search: str, more: dict[str, Any], said: str) -> None:
    model, x, data = images()
    with pytest.raises(UsageError, match=said):
        compressor.compress(model, x, {"flops": "50%"}, search=search, **{"data": data, "training": QUICK, **more})


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("dash", "dash trains in a loop of its own"),
        ("dash,figs", "dash,figs is several searches"),
        ("oneshot", "oneshot does not train"),
    ],
)
def test_a_loop_of_one_s_own_has_one_search_that_can_be_there(search: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compressor.prepare(net(), EXAMPLE, {"flops": "50%"}, total_steps=2, search=search)
