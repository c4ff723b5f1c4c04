"""Budgets and job settings: what is read, what is refused, and that errors say what to write instead."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.budget import Budget, parse_budget, parse_budgets
from compressor.errors import UsageError
from compressor.jobs.config import JobConfig, default_out, upgraded
from compressor.jobs.run import command_of


@pytest.mark.parametrize(
    ("cost", "text", "value"),
    [
        ("flops", "2G", 2e9),
        ("flops", "500M", 5e8),
        ("flops", "1.5e9", 1.5e9),
        ("flops", " 2 g ", 2e9),
        ("flops", 1_000_000, 1e6),
        ("flops", "1e3M", 1e9),
        ("params", "250k", 250e3),
        ("params", "7B", 7e9),
        ("memory", "12MB", 12e6),
        ("memory", "12MiB", 12 * 2**20),
        ("memory", "800kB", 800e3),
        ("memory", "512B", 512),
        ("latency", "3ms", 3),
        ("latency", "800us", 0.8),
        ("latency", "0.1s", 100),
        ("latency", 0.5, 0.5),
    ],
)
def test_absolute_amounts(cost: str, text: str | float, value: float) -> None:
    budget = parse_budget(cost, text)
    assert not budget.relative
    assert budget.limit(original=123.0) == pytest.approx(value)


@pytest.mark.parametrize(("text", "limit"), [("50%", 500.0), ("0.5%", 5.0), ("100%", 1000.0), ("250 %", 2500.0)])
def test_percent_is_relative_to_the_original(text: str, limit: float) -> None:
    budget = parse_budget("flops", text)
    assert budget.relative
    assert budget.limit(1000.0) == pytest.approx(limit)


ALIKE = [
    ("flops", ["50%", "50.0%", "5e1%", "50 %", "050.00%", "+50%", ".5e2%"], "50%"),
    ("flops", ["33.3%", "3.33e1%", "33.300%"], "33.3%"),
    ("flops", ["2G", "2000M", "2e9", "2.0g", "2000000k", "0.002T", "2B"], "2G"),
    ("flops", ["2.3G", "2300M", "2.3e9", "2300000000"], "2.3G"),
    ("params", ["250k", "0.25M", "250000", "2.5e5"], "250k"),
    ("params", ["999", "0.999k"], "999"),
    ("complexity", ["1.5M", "1500k"], "1.5M"),
    ("memory", ["12MB", "12000kB", "0.012G", "12e6", "12000000B"], "12MB"),
    ("memory", ["1MiB", "1024KiB", "1048576"], "1.048576MB"),
    ("latency", ["4ms", "4.0 ms", "4000us", "0.004s", "4", "4000µs"], "4ms"),
    ("latency", ["0.1s", "100ms", "1e2"], "100ms"),
    ("latency", ["0.7us", "0.0007ms", "7e-7s"], "0.0007ms"),
]


@pytest.mark.parametrize(("cost", "texts", "normal"), ALIKE)
def test_one_amount_written_in_several_ways_is_one_budget(cost: str, texts: list[str], normal: str) -> None:
    budgets = [parse_budget(cost, text) for text in texts]
    assert len(set(budgets)) == 1
    assert {budget.normal for budget in budgets} == {normal}
    assert parse_budget(cost, normal) == budgets[0]
    assert [budget.text for budget in budgets] == texts, "what the user wrote is said back"
    assert len({default_out("m", (budget,)) for budget in budgets}) == 1
    identities = [JobConfig("m", (b,), "out", target="t" if cost == "latency" else None).identity() for b in budgets]
    assert all(identity == identities[0] for identity in identities)


def test_lowest_budgets_are_compared_by_their_amount_too() -> None:
    def identity(lowest: str) -> object:
        options = {"lowest": lowest}
        return JobConfig("m", (parse_budget("flops", "50%"),), "out", search="supernet", options=options).identity()

    same = ["flops=25%,params=1M", " flops = 25.0%, params=1000k", "flops=2.5e1%,params=1e6"]
    assert all(identity(each) == identity(same[0]) for each in same)
    assert identity("flops=26%,params=1M") != identity(same[0])
    assert identity("nothing") == identity("nothing")


@given(st.floats(min_value=1, max_value=1e18), st.sampled_from(["flops", "params", "memory", "latency", "complexity"]))
def test_the_normal_text_is_the_same_amount(value: float, cost: str) -> None:
    budget = parse_budget(cost, value)
    again = parse_budget(cost, budget.normal)
    assert again.value == pytest.approx(budget.value, rel=1e-14)
    assert again.normal == budget.normal


@pytest.mark.parametrize("text", ["1e999999999999999999999", "1e-999999999999999999999", "9" * 99 + "%%", "1e400%"])
def test_amounts_out_of_every_range(text: str) -> None:
    with pytest.raises(UsageError, match="for example"):
        parse_budget("flops", text)


@pytest.mark.parametrize(
    "text", ["2X", "", "  ", "%", "G", "0", "0%", "-1G", "-5%", "nan", "inf", "-inf", "2GG", "1,5G", "0x10", "1e400"]
)
@pytest.mark.parametrize("cost", ["flops", "params", "memory", "latency"])
def test_junk_is_refused_with_examples(cost: str, text: str) -> None:
    with pytest.raises(UsageError, match="for example") as caught:
        parse_budget(cost, text)
    assert "\n" not in str(caught.value)
    assert text.strip() in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, 0.0, -3, True, None, [1]])
def test_bad_values_from_python_are_refused(value: object) -> None:
    with pytest.raises(UsageError):
        parse_budget("flops", value)  # type: ignore[arg-type]


def test_a_fraction_is_not_taken_for_a_share() -> None:
    with pytest.raises(UsageError, match=r"50\.000%"):
        parse_budget("flops", 0.5)


def test_unknown_cost_lists_the_costs() -> None:
    with pytest.raises(UsageError, match="latency"):
        parse_budget("watts", "3")


@given(st.text(max_size=12))
def test_any_text_gives_a_positive_budget_or_a_usage_error(text: str) -> None:
    try:
        budget = parse_budget("flops", text)
    except UsageError:
        return
    assert 0 < budget.limit(1e9) < math.inf


def test_parse_budgets_wants_at_least_one() -> None:
    assert [budget.cost for budget in parse_budgets({"flops": "50%", "params": 1e6})] == ["flops", "params"]
    with pytest.raises(UsageError, match="--budget-flops"):
        parse_budgets({})


HALF = (parse_budget("flops", "50%"),)


def test_job_round_trips_through_json() -> None:
    job = JobConfig(
        "resnet18", HALF, "out", data="digits", finetune_epochs=2, include=("layer*",), input_shape=(3, 8, 8)
    )
    assert JobConfig.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_grids_round_trip_and_are_part_of_the_command() -> None:
    told = {"data": "digits", "finetune_epochs": 2, "tune_epochs": 3, "trial_workers": 2}
    own = JobConfig("m", HALF, "o", tune={"weight_decay": "0,1e-4", "lr": [0.1, 0.01, 0.1]}, **told)
    assert own.tune == {"lr": (0.1, 0.01), "weight_decay": (0.0, 1e-4)}
    assert JobConfig.from_json(json.loads(json.dumps(own.to_json()))) == own
    command = command_of(own)
    assert "--tune.lr 0.1,0.01 --tune.weight-decay 0.0,0.0001" in command
    assert "--tune-epochs 3" in command
    assert "--trial-workers 2" in command
    assert "--tune short" in command_of(JobConfig("m", HALF, "o", tune="short", **told))
    assert "tune" not in command_of(JobConfig("m", HALF, "o"))


def test_jobs_of_before_nothing_was_tuned_go_on() -> None:
    job = JobConfig("resnet18", HALF, "a", trial_workers=3)
    before = {key: value for key, value in job.identity().items() if not key.startswith("tun")}
    assert "trial_workers" not in before
    assert upgraded(before) == job.identity()
    tuned = JobConfig("resnet18", HALF, "a", data="digits", finetune_epochs=1, tune="short")
    assert tuned.identity() != JobConfig("resnet18", HALF, "a", data="digits", finetune_epochs=1).identity()


def test_identity_ignores_where_the_result_goes() -> None:
    one = JobConfig("resnet18", HALF, "a")
    assert one.identity() == JobConfig("resnet18", HALF, "b", force=True).identity()
    assert one.identity() != JobConfig("resnet18", HALF, "a", seed=1).identity()
    assert one.identity() != JobConfig("resnet18", (parse_budget("flops", "40%"),), "a").identity()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": " "}, "--model"),
        ({"budgets": ()}, "--budget-flops"),
        ({"budgets": HALF * 2}, "Two budgets"),
        ({"batch_size": 0}, "batch_size"),
        ({"round_to": 0}, "round_to"),
        ({"seed": -1}, "seed"),
        ({"lr": math.nan}, "lr"),
        ({"distill": -0.1}, "distill"),
        ({"device": "tpu"}, "cuda"),
        ({"num_classes": 0}, "num_classes"),
        ({"input_shape": (3, 0, 4)}, "input_shape"),
        ({"finetune_epochs": 3}, "--data"),
        ({"finetune_epochs": -1, "data": "digits"}, "finetune_epochs"),
        ({"tune": "short"}, "--data"),
        ({"tune": {"lr": [0.1]}, "data": "digits"}, "--finetune-epochs"),
        ({"tune": "shrt"}, "short"),
        ({"tune": {}}, "empty"),
        ({"tune": {"lr": []}}, "tune.lr"),
        ({"tune": {"lr": [0.1, -1]}}, "tune.lr"),
        ({"tune": {"lr": "fast"}}, "tune.lr"),
        ({"tune": {"momentum": [1.0]}}, "tune.momentum"),
        ({"tune": {"dropout": [1.0]}}, "tune.dropout"),
        ({"tune": {"weight_decay": [math.inf]}}, "tune.weight_decay"),
        ({"tune": {"warmup": [1]}}, "warmup"),
        ({"tune": {"lr": [0.1 + i for i in range(40)], "weight_decay": list(range(40))}}, "1600"),
        ({"tune_epochs": 0}, "tune_epochs"),
        ({"tune_samples": 0}, "tune_samples"),
        ({"tune_samples": 1.5}, "tune_samples"),
        ({"trial_workers": 0}, "trial_workers"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], named: str) -> None:
    values: dict[str, object] = {"model": "resnet18", "budgets": HALF, "out": "o", **settings}
    with pytest.raises(UsageError, match=named):
        JobConfig(**values)  # type: ignore[arg-type]


def test_unknown_settings_are_named() -> None:
    with pytest.raises(UsageError, match="colour"):
        JobConfig.from_json({**JobConfig("m", HALF, "o").to_json(), "colour": "red"})


def test_default_folder_names_model_and_budgets() -> None:
    budgets = (Budget("flops", 2e9, False, "2G"), parse_budget("params", "50%"))
    assert default_out("resnet50", budgets) == "compressed/resnet50-flops-2G-params-50pct"
    assert "/" not in default_out("pkg.module:make", HALF).removeprefix("compressed/")


def test_who_reads_the_data_says_nothing_about_the_result() -> None:
    job = JobConfig("resnet18", HALF, "a", data="digits", data_workers=3)
    assert job.identity() == JobConfig("resnet18", HALF, "a", data="digits").identity()
    assert "--data-workers 3" in command_of(job)
    with pytest.raises(UsageError, match="data_workers"):
        JobConfig("resnet18", HALF, "a", data_workers=-1)
