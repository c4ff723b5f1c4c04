"""A method, a choice with its edit, a cost and an operator of a third party: one file and one line each, and they work
from the command line, from Python, in the report, after a kill and after saving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.architecture.edits import EDITS
from compressor.budget import COSTS
from compressor.costs import Sizes, build
from compressor.errors import UnsupportedModelError, UsageError, VerificationError
from compressor.graph import capture, choices
from compressor.graph.choices import CHOICES, ChoiceSite, add_choices
from compressor.graph.groups import Alternative
from compressor.graph.rules import EXTENSIONS
from compressor.search import METHODS
from compressor.search.constraints.constraint import Constraint, hard_sizes
from compressor.search.constraints.projector import Projector
from tests.toys.choice import SwapActivation
from tests.toys.networks import ToyNet, make

ROOT = Path(__file__).parents[2]
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LINES = {
    "compressor.search": ("thrifty", "tests.toys.method:METHOD", METHODS),
    "compressor.choices": ("toy_activation", "tests.toys.choice:find", CHOICES),
    "compressor.edits": ("swap_activation", "tests.toys.choice:SwapActivation", EDITS),
    "compressor.costs": ("price", "tests.toys.cost:Price", COSTS),
    "compressor.rules": ("twice", "tests.toys.rule:rule", EXTENSIONS),
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, target, registry in LINES.values():
        monkeypatch.setitem(registry._known(), name, target)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the entry points of a distribution that was installed."""
    info = tmp_path / "site" / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = {target}\n" for group, (name, target, _) in LINES.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return info.parent


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    command = [sys.executable, "-m", "compressor", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=site, timeout=300)


@pytest.mark.usefixtures("installed")
class TestFromPython:
    def test_the_operator_s_rule_frees_its_channels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        free = capture(make(), X)
        assert {group.name for group in free.groups} == {"stem", "body"}
        monkeypatch.delitem(EXTENSIONS._known(), "twice")
        fixed = capture(make(), X)
        assert {group.name for group in fixed.groups} == {"body"}
        assert any(f.operator == "twice" for f in fixed.fixed)

    @pytest.mark.parametrize("love", [0.0, 1e6])
    def test_budgets_are_met_over_channels_and_choices_together(self, love: float, tmp_path: Path) -> None:
        budgets = {"flops": "80%", "price": "80%"}
        result = compressor.compress(make(), X, budgets, search="thrifty", options={"love": love})
        assert all(budget.met for budget in result.report.budgets)
        model: Any = result.model
        swapped = [type(model.first).__name__, type(model.second).__name__]
        assert (swapped == ["ReLU", "ReLU"]) == (love > 1)
        assert [c.after for c in result.report.choices] == swapped
        again = capture(result.model, X)
        assert {c.name: c.reached for c in result.report.costs} == {
            name: build(name, again).original for name in ("flops", "params", "memory")
        }
        kinds = {edit.kind for edit in result.architecture.edits}
        assert ("swap_activation" in kinds) == (love < 1)
        loaded = compressor.load(result.save(tmp_path / "out"), model=make())
        assert torch.equal(loaded(X), result.model(X))

    def test_a_result_is_searched_again_and_the_rounds_are_one(self, tmp_path: Path) -> None:
        first = compressor.compress(make(), X, {"price": "70%"}, search="thrifty", options={"love": 0.0})
        second = compressor.compress(first.model, X, {"flops": "60%"}, search="oneshot")
        again = second.architecture.apply_(make()).eval()
        assert {n: t.shape for n, t in again.state_dict().items()} == {
            n: t.shape for n, t in second.model.state_dict().items()
        }
        second.save(tmp_path)
        assert torch.equal(compressor.load(tmp_path, model=make())(X), second.model(X))

    def test_a_latency_budget_over_choices_is_refused(self, tmp_path: Path) -> None:
        target = compressor.TargetSettings("simulated", tmp_path / "lut.sqlite")
        with pytest.raises(UsageError, match=r"thrifty decides on choices \(toy_activation\)"):
            compressor.compress(make(), X, {"latency": "60%"}, search="thrifty", target=target)

    def test_costs_are_expectations_and_exact_when_hard(self) -> None:
        graph = capture(make(), X)
        add_choices(make(), graph, ["toy_activation"])
        term = build("price", graph)
        weights = torch.ones(graph.n_units, dtype=torch.float64)
        first, second = graph.choices
        weights[torch.from_numpy(first.units)] = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
        weights[torch.from_numpy(second.units)] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        assert float(term(Sizes(graph, weights))) == pytest.approx(40 + 0.5 * 30 + 0.25 * 20)
        assert term.original == 40 + 60
        assert build("flops", graph).original == build("flops", capture(make(), X)).original

    def test_of_a_choice_always_one_is_there(self) -> None:
        graph = capture(make(), X)
        add_choices(make(), graph, ["toy_activation"])
        projector = Projector(graph, [Constraint(build("price", graph), 30.0)])
        rng = np.random.default_rng(0)
        for units in (
            graph.all_units(),
            projector.start,
            projector.minimal(rng.random(graph.n_units)),
            *(projector.choose(projector.smallest, rng.random(graph.n_units)) for _ in range(5)),
            projector.fill(projector.minimal(rng.random(graph.n_units)), rng.random(graph.n_units)),
        ):
            assert [int(units[choice.units].sum()) for choice in graph.choices] == [1, 1]
        assert float(build("price", graph)(hard_sizes(graph, projector.minimal(rng.random(graph.n_units))))) == 2

    def test_what_a_choice_does_not_say_about_costs_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from compressor.architecture.edits import ReplaceConvolution

        def lying(model: nn.Module, graph: Any) -> list[ChoiceSite]:
            small = Alternative("1x1", (ReplaceConvolution("body", [1, 1], [1, 1]),))
            return [ChoiceSite("body", [Alternative("3x3"), small])]

        def honest(model: nn.Module, graph: Any) -> list[ChoiceSite]:
            return [ChoiceSite("body", lying(model, graph)[0].alternatives, scaled={"body": (9, 1)})]

        thrifty = {"search": "thrifty", "options": {"love": 0.0}}
        monkeypatch.setattr("tests.toys.choice.find", honest)
        monkeypatch.setattr("tests.toys.cost.PRICES", {"3x3": 50.0, "1x1": 1.0})
        result = compressor.compress(make(), X, {"flops": "30%", "price": "60%"}, **thrifty)  # type: ignore[arg-type]
        assert all(budget.met for budget in result.report.budgets)
        small: Any = result.model
        assert small.body.kernel_size == (1, 1)
        assert sum(p.numel() for p in small.parameters()) == next(
            c.reached for c in result.report.costs if c.name == "params"
        )
        monkeypatch.setattr("tests.toys.choice.find", lying)
        with pytest.raises(VerificationError, match="replace_convolution of body the flops are"):
            compressor.compress(make(), X, {"price": "60%"}, **thrifty)  # type: ignore[arg-type]


SITES = [
    (ChoiceSite("x", [Alternative("a")]), "needs two at least"),
    (ChoiceSite("x", [Alternative("a"), Alternative("b")], current=2), "which is not there"),
    (ChoiceSite("x", [Alternative("a", (SwapActivation("x", "ReLU"),)), Alternative("b")]), "has already"),
    (ChoiceSite("x", [Alternative("a"), Alternative("a")]), "two alternatives of one name"),
    (ChoiceSite("x", [Alternative("a"), Alternative("b")], scaled={"x": (1,)}), "for each of its 2"),
    (ChoiceSite("x", [Alternative("a"), Alternative("b")], scaled={"x": (1, 0)}), "from 1 to"),
]


@pytest.mark.parametrize(("site", "said"), SITES, ids=[said for _, said in SITES])
def test_a_finder_s_mistake_is_named(site: ChoiceSite, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choices.CHOICES._known(), "bad", "tests.toys.test_toys:nothing")
    monkeypatch.setattr("tests.toys.test_toys.nothing", lambda model, graph: [site])
    with pytest.raises(UnsupportedModelError, match=said):
        add_choices(make(), capture(make(), X), ["bad"])


def nothing(model: nn.Module, graph: Any) -> list[ChoiceSite]:
    return []


def test_an_edit_that_does_not_fit_is_named() -> None:
    model = ToyNet()
    shapes = {name: list(t.shape) for name, t in model.named_parameters()}
    with pytest.raises(UsageError, match="swap_activation of 'stem'"):
        compressor.Architecture("ToyNet", shapes, (SwapActivation("stem", "ReLU"),)).apply_(model)


def test_plug_ins_that_clash_are_named(site: Path) -> None:
    points = site / "toys-1.0.dist-info" / "entry_points.txt"
    points.write_text("[compressor.search]\nfigs = tests.toys.method:METHOD\n")
    done = run(site, "--model", "resnet20_cifar", "--budget-flops", "50%")
    assert done.returncode == 2
    assert "The search method 'figs' of 'tests.toys.method:METHOD' is taken by" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_package:METHOD", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("tests.toys.method:NOTHING", "has no attribute 'NOTHING'"),
        ("tests.toys.method:Thrifty", "which is no Method"),
        ("antigravity_of_toys:x", "cannot be loaded"),
    ],
)
def test_a_plug_in_that_is_broken_is_named_and_leaves_the_rest_alone(site: Path, target: str, said: str) -> None:
    (site / "antigravity_of_toys.py").write_text("raise SystemExit(0)\n")
    points = site / "toys-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[compressor.search]\nbroken = {target}\n")
    helped = run(site, "--help")
    assert helped.returncode == 0
    assert "--figs.tau" in helped.stdout
    done = run(site, "--model", "resnet20_cifar", "--budget-flops", "50%", "--search", "broken")
    assert done.returncode == 2
    assert said in done.stderr
    assert "'broken'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_on_the_command_line_in_the_report_and_on_resuming(site: Path, tmp_path: Path) -> None:
    assert "--thrifty.love" in run(site, "--help").stdout
    shown = run(site, "inspect", "--model", "tests.toys.networks:make", "--input-shape", "1,8,8")
    assert "toy_activation" in shown.stdout
    out = tmp_path / "out"
    job = ["--model", "tests.toys.networks:make", "--weights", "none", "--input-shape", "1,8,8", "--search", "thrifty"]
    job += ["--thrifty.love", "0", "--budget", "price=60%", "--budget-flops", "90%", "--export", "none"]
    job += ["--bench-seconds", "0", "--out", str(out)]
    done = run(site, *job)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert {c["after"] for c in report["choices"]} == {"Identity"}
    assert "--thrifty.love 0" in report["command"]
    assert "--budget price=60%" in report["command"]
    assert "Choices" in (out / "report.html").read_text()
    assert "choices" in done.stdout
    before = (out / "model.safetensors").read_bytes()
    for name in ("report.json", "report.safetensors"):
        (out / ".job" / "stages" / name).unlink(missing_ok=True)
    again = run(site, *job)
    assert again.returncode == 0, again.stderr
    assert (out / "model.safetensors").read_bytes() == before
    refused = run(site, *job[:-2], "--figs.tau", "0.01", "--out", str(tmp_path / "other"))
    assert refused.returncode == 2
    assert "--figs.tau is for --search figs, and thrifty was chosen" in refused.stderr
