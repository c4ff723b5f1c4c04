"""``compressor.compress``: one call from a network and a budget to a smaller one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor import Architecture, Result
from compressor.costs import build
from compressor.errors import UnreachableBudgetError, UnsupportedModelError, UsageError
from compressor.report import summary_text
from tests.api_models import EXAMPLE, Autoencoder, Net, TwoInputs, loader, net, same

QUICK = {"search_epochs": 1, "finetune_epochs": 1, "batch_size": 32}


def data() -> tuple[Any, Any]:
    return loader(), loader(32, seed=1)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_without_data_kept_weights_are_the_originals() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    result = compressor.compress(model, EXAMPLE, {"flops": "50%"})
    assert type(result.model) is Net
    assert not result.model.training
    assert model.training, "the original stays in its mode"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    small = result.model.state_dict()
    for name, tensor in before.items():
        kept = tensor
        for axis in range(tensor.dim()):
            kept = kept.index_select(axis, torch.tensor(result.architecture.kept(name, axis)))
        if not result.architecture.is_removed(name):
            assert torch.equal(small[name], kept)
    (budget,) = result.report.budgets
    assert 0.97 * budget.limit <= budget.reached <= budget.limit
    graph = compressor.capture(result.model, EXAMPLE)
    assert build("flops", graph).original == budget.reached
    assert result.report.verification is not None
    assert result.report.verification.error <= 1e-9
    assert str(result) == summary_text(result.report)
    assert repr(result).startswith("<Result Net: ")
    assert "\n" not in repr(result)


@pytest.mark.parametrize("search", ["oneshot", "figs"])
@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_many_budgets_hold_with_any_form_of_output(search: str, form: str) -> None:
    budgets = {"flops": "60%", "params": "50%", "memory": "90%"}
    result = compressor.compress(net(form), EXAMPLE, budgets, data=data(), search=search, **QUICK)
    assert len(result.report.budgets) == 3
    assert all(budget.met for budget in result.report.budgets)
    assert parameters(result.model) <= 0.5 * parameters(net())
    accuracy = result.report.accuracy
    assert accuracy is not None
    assert None not in (accuracy.before, accuracy.after_search, accuracy.after_finetune)
    assert type(result.model(EXAMPLE)) is type(net(form)(EXAMPLE))


@pytest.mark.parametrize("search", ["oneshot", "figs"])
def test_the_same_seed_gives_the_same_network(search: str) -> None:
    first, again = (
        compressor.compress(net(), EXAMPLE, {"flops": "50%"}, data=data(), search=search, seed=4, **QUICK)
        for _ in range(2)
    )
    assert first.architecture == again.architecture
    found = again.model.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in first.model.state_dict().items())


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
@pytest.mark.parametrize("depth", [True, False])
def test_saved_and_loaded_it_computes_the_same(tmp_path: Path, form: str, depth: bool) -> None:
    result = compressor.compress(net(form), EXAMPLE, {"flops": "40%"}, options={"depth": depth})
    folder = result.save(tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {
        "architecture.json",
        "model.safetensors",
        "report.json",
        "report.html",
    }
    loaded = compressor.load(folder, model=Net(form=form))
    assert same(loaded(EXAMPLE), result.model(EXAMPLE))
    with pytest.raises(UsageError, match="pass a fresh original"):
        compressor.load(folder)


def test_the_architecture_rebuilds_the_network_from_json() -> None:
    result = compressor.compress(net(), EXAMPLE, {"params": "30%"})
    document = json.loads(json.dumps(result.architecture.to_json()))
    architecture = Architecture.from_json(document)
    assert architecture == result.architecture
    fresh = architecture.apply_(net()).eval()
    assert same(fresh(EXAMPLE), result.model(EXAMPLE)), "sliced from the same weights"
    with pytest.raises(UsageError, match="made for"):
        architecture.apply_(Net(width=8))
    with pytest.raises(UsageError, match="no parameter 'nope'"):
        architecture.kept("nope", 0)
    with pytest.raises(UsageError, match="axis 4 is out of range"):
        architecture.kept("stem.weight", 4)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Autoencoder()
    x = torch.randn(3, 12)
    result = compressor.compress(model, x, {"flops": "60%"})
    small: Any = result.model
    assert small.last.weight is small.first.weight
    assert len(small.first.weight) < 32
    assert result.architecture.kept("last.weight", 0) == result.architecture.kept("first.weight", 0)
    loaded: Any = compressor.load(result.save(tmp_path), model=Autoencoder())
    assert loaded.last.weight is loaded.first.weight
    assert torch.equal(loaded(x), small(x))


def test_several_inputs_and_keywords() -> None:
    torch.manual_seed(0)
    model, inputs, scale = TwoInputs(), (torch.randn(2, 6), torch.randn(2, 3)), torch.ones(2, 1)
    result = compressor.compress(model, inputs, {"params": "50%"}, example_kwargs={"scale": scale})
    assert parameters(result.model) <= 0.5 * parameters(model)
    assert result.model(*inputs, scale=scale).shape == (2, 2)


@pytest.mark.parametrize("round_to", [4, 8])
@pytest.mark.parametrize("search", ["oneshot", "figs"])
def test_widths_are_multiples(round_to: int, search: str) -> None:
    options: dict[str, Any] = {"data": data(), **QUICK} if search == "figs" else {}
    result = compressor.compress(net(), EXAMPLE, {"flops": "50%"}, search=search, round_to=round_to, **options)
    original = dict(net().named_parameters())
    for name, parameter in result.model.named_parameters():
        if len(parameter) != len(original[name]):
            assert len(parameter) % round_to == 0


def test_include_and_exclude() -> None:
    full = {name: module.weight.shape for name, module in net().named_modules() if isinstance(module, nn.Conv2d)}

    def changed(**patterns: tuple[str, ...]) -> set[str]:
        result = compressor.compress(net(), EXAMPLE, {"flops": "95%"}, options={"depth": False}, **patterns)  # type: ignore[arg-type]
        modules = dict(result.model.named_modules())
        return {name for name, shape in full.items() if modules[name].weight.shape[0] != shape[0]}  # type: ignore[index, union-attr]

    assert changed(include=("up",)) == {"up"}
    assert changed(include=("u*",)) == {"up"}
    assert not changed(exclude=("up", "stem", "down")) & {"up", "stem", "down"}
    assert not changed(keep_outputs=("stem",)) & {"stem", "down"}
    with pytest.raises(UsageError, match="did you mean up"):
        changed(include=("upp",))
    with pytest.raises(UsageError, match="exclude pattern 'nothing'"):
        changed(exclude=("nothing",))
    with pytest.raises(UsageError, match="keep_outputs"):
        changed(keep_outputs=("nothing",))


def test_a_budget_above_the_cost_changes_nothing() -> None:
    model = net().eval()
    result = compressor.compress(model, EXAMPLE, {"flops": "1T"}, data=data(), **QUICK)
    assert same(result.model(EXAMPLE), model(EXAMPLE))
    assert any("Nothing to do" in warning for warning in result.report.warnings)
    assert result.report.accuracy is not None
    assert result.report.accuracy.after_search == result.report.accuracy.before


def test_a_loss_of_ones_own_is_used() -> None:
    calls = []

    def loss(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return nn.functional.cross_entropy(outputs["logits"], targets) + outputs["stem"].square().mean()

    compressor.compress(net("dict"), EXAMPLE, {"flops": "60%"}, data=data(), loss_fn=loss, **QUICK)
    assert calls


def test_distillation_from_the_original() -> None:
    result = compressor.compress(net(), EXAMPLE, {"flops": "60%"}, data=data(), distill=0.5, **QUICK)
    assert result.report.budgets[0].met


@pytest.mark.parametrize(
    "given",
    [
        lambda: loader(),
        lambda: [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4) for _ in range(12)],
        lambda: {"train": loader(), "val": loader(16, 1), "test": loader(32, 2)},
    ],
)
def test_forms_of_data(given: Any) -> None:
    result = compressor.compress(net(), EXAMPLE, {"flops": "60%"}, data=given(), **QUICK)
    assert result.report.accuracy is not None
    assert result.report.accuracy.after_finetune is not None


def test_wrong_arguments() -> None:
    with pytest.raises(UsageError, match="No budget"):
        compressor.compress(net(), EXAMPLE, {})
    with pytest.raises(UsageError, match="Unknown cost 'flop'"):
        compressor.compress(net(), EXAMPLE, {"flop": "50%"})
    with pytest.raises(UsageError, match=r"write '50\.000%'"):
        compressor.compress(net(), EXAMPLE, {"flops": 0.5})
    with pytest.raises(UsageError, match="Did you mean oneshot"):
        compressor.compress(net(), EXAMPLE, {"flops": "50%"}, search="one-shot")
    with pytest.raises(UsageError, match="learns from data"):
        compressor.compress(net(), EXAMPLE, {"flops": "50%"}, search="figs")
    with pytest.raises(UsageError, match="needs 'train'"):
        compressor.compress(net(), EXAMPLE, {"flops": "50%"}, data={"trian": loader()})
    with pytest.raises(UsageError, match="not int"):
        compressor.compress(net(), EXAMPLE, {"flops": "50%"}, data=3)  # type: ignore[arg-type]
    with pytest.raises(UnreachableBudgetError, match="smallest"):
        compressor.compress(net(), EXAMPLE, {"flops": 10})
    with pytest.raises(UnsupportedModelError, match="no parameters"):
        compressor.compress(nn.ReLU(), EXAMPLE, {"flops": "50%"})
    with pytest.raises(UnsupportedModelError, match="raises on the example inputs"):
        compressor.compress(net(), torch.randn(1, 5, 8, 8), {"flops": "50%"})


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (torch.zeros(0, 3, 8, 8), "empty"),
        (torch.zeros(2, 3, 0, 8), "empty"),
        (torch.zeros(2, 3, 8, 8, device="meta"), "meta"),
    ],
)
def test_inputs_without_numbers(example: torch.Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compressor.compress(net(), example, {"flops": "50%"})
    with pytest.raises(UsageError, match=said):
        compressor.prepare(net(), example, {"flops": "50%"}, total_steps=4)


class Leaves(nn.Module):
    """Ends the program that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise SystemExit(0)


def test_a_forward_that_ends_the_program_is_a_failure() -> None:
    with pytest.raises(UnsupportedModelError, match="ends the program"):
        compressor.compress(Leaves(), torch.randn(1, 4), {"flops": "50%"})
    with pytest.raises(UnsupportedModelError, match="ends the program"):
        compressor.prepare(Leaves(), torch.randn(1, 4), budgets={"flops": "50%"}, total_steps=10)


def test_silent_unless_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    compressor.compress(net(), EXAMPLE, {"flops": "50%"})
    assert capsys.readouterr() == ("", "")
    compressor.compress(net(), EXAMPLE, {"flops": "50%"}, verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "search" in err


def test_export(tmp_path: Path) -> None:
    result: Result = compressor.compress(net(), EXAMPLE[:1], {"flops": "50%"})
    (path,) = result.export(tmp_path)
    assert path.suffix == ".onnx"
    assert path.stat().st_size > 0


def test_names_of_the_package() -> None:
    assert set(compressor.__all__) <= set(dir(compressor))
    assert all(getattr(compressor, name) is not None for name in compressor.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        compressor.nope  # noqa: B018


@pytest.mark.parametrize("listeners", [3, None, "tensorboard", print, ["tensorboard"], [print, 3], {"a": print}])
def test_listeners_that_are_no_functions_are_refused_before_any_work(listeners: Any) -> None:
    model = Untouched()
    for call, budgets in ((compressor.compress, {"flops": "50%"}), (compressor.sweep, [{"flops": "50%"}])):
        with pytest.raises(UsageError, match="listeners"):
            call(model, EXAMPLE, budgets, listeners=listeners)


class Untouched(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError
