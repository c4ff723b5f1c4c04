"""What dash finds is an ordinary network: on many backbones, for other methods, on disk, and exported."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.data import Data, from_loaders
from compressor.errors import TrainingError
from compressor.graph import capture
from compressor.models import load_model
from compressor.pipeline.chosen import with_choices
from compressor.search.result import SearchResult
from tests.search.test_dash import learner

QUICK = compressor.Training(search_epochs=1, finetune_epochs=1, batch_size=16, lr=0.01, tune="none")
BACKBONES = {
    "resnet20_cifar": (3, 32, 32),
    "resnet18": (3, 48, 48),
    "mobilenet_v2": (3, 48, 48),
    "mobilenet_v3_small": (3, 48, 48),
    "densenet121": (3, 40, 40),
    "squeezenet1_1": (3, 64, 64),
    "shufflenet_v2_x0_5": (3, 48, 48),
    "regnet_y_400mf": (3, 40, 40),
    "googlenet": (3, 64, 64),
    "convnext_tiny": (3, 32, 32),
    "wrn_16_1": (3, 16, 24),
    "wrn1d": (2, 80),
    "tcn": (2, 80),
}
SLOW = {"densenet121", "regnet_y_400mf", "googlenet", "convnext_tiny"}


def shipped(name: str, shape: tuple[int, ...], classes: int = 4) -> nn.Module:
    model: nn.Module = load_model(name, weights="none", example_shape=shape, num_classes=classes, seed=0).model
    return model


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in BACKBONES])
def test_masked_is_trimmed_on_any_backbone(name: str) -> None:
    shape = BACKBONES[name]
    model = shipped(name, shape).double().eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    graph, found = learner(model, x, {"flops": 9.0}, form="weights", warm=False)
    assert graph.choices
    random = np.random.default_rng(0)
    units, weights = graph.all_units(), []
    for choice, open_ in zip(graph.choices, found._allowed, strict=True):
        pick = int(random.choice(np.flatnonzero(open_)))
        units[choice.units] = np.arange(len(choice)) == pick
        weights.append(torch.eye(len(choice), dtype=torch.float64)[pick])
    found.supernet.give(weights)
    with torch.no_grad():
        searched = model.eval()(x)
    trained = found.supernet.weights()
    found.supernet.restore_()
    decision = SearchResult(units, torch.zeros(graph.n_units), [], weights=trained)
    chosen = with_choices(model, graph, decision, lambda m: capture(m, x))
    with torch.no_grad():
        torch.testing.assert_close(first(chosen.model.eval()(x)), first(searched), rtol=1e-9, atol=1e-9)


def first(y: Any) -> Tensor:
    while not isinstance(y, Tensor):
        y = y[0]
    return y


def data_of(shape: tuple[int, ...]) -> Data:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(48, *shape, generator=generator), torch.arange(48) % 4
    batches = DataLoader(TensorDataset(inputs, targets), batch_size=16)
    return from_loaders(batches, batches)


@pytest.fixture(
    scope="module", params=["wrn_16_1", "wrn1d", pytest.param("mobilenet_v3_small", marks=pytest.mark.slow)]
)
def found(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[int, ...], compressor.Result]:
    shape = BACKBONES[request.param]
    model = shipped(request.param, shape)
    result = compressor.compress(
        copy.deepcopy(model),
        torch.randn(2, *shape),
        {"flops": "150%", "params": "150%"},
        data=data_of(shape),
        search="dash",
        options={"kernel_sizes": (3, 5, 7), "dilations": (1, 2), "share": 1.0},
        training=QUICK,
    )
    return model, shape, result


@pytest.mark.parametrize(
    ("search", "options"), [("oneshot", {}), ("figs", {}), ("dnarch", {}), ("dash", {"dilations": (1, 3)})]
)
def test_every_method_takes_what_was_found(found: Any, search: str, options: dict[str, Any]) -> None:
    original, shape, result = found
    x = torch.randn(2, *shape)
    before = result.report.budgets[0].reached
    again = compressor.compress(
        copy.deepcopy(result.model),
        x,
        {"flops": "60%" if search != "dash" else "120%"},
        data=data_of(shape),
        search=search,
        options=options,
        training=QUICK,
    )
    assert again.report.budgets[0].met
    assert again.report.budgets[0].original == pytest.approx(before)
    assert again.report.verification.passed
    both: Any = again.architecture.apply_(copy.deepcopy(original))  # the edits of both
    both.load_state_dict(again.model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(both.eval()(x), again.model.eval()(x), rtol=1e-5, atol=1e-6)


def test_what_was_found_is_saved_loaded_and_exported(found: Any, tmp_path: Path) -> None:
    original, shape, result = found
    x = torch.randn(2, *shape)
    wanted = result.model.eval()(x).detach()
    result.save(tmp_path / "kept")
    loaded = compressor.load(tmp_path / "kept", model=copy.deepcopy(original))
    torch.testing.assert_close(loaded.eval()(x).detach(), wanted, rtol=1e-5, atol=1e-6)
    import onnxruntime

    (file,) = result.export(tmp_path)
    session = onnxruntime.InferenceSession(str(file))
    name = session.get_inputs()[0].name
    y = session.run(None, {name: x.numpy()})[0]
    np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-3, atol=1e-4)
    for name, kernel in result.report.operators.items():
        conv: Any = dict(loaded.named_modules())[name]
        assert (list(conv.kernel_size), list(conv.dilation)) == (kernel.kernel_size, kernel.dilation)


def test_what_was_found_runs_in_openvino(found: Any, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    _, shape, result = found
    x = torch.randn(2, *shape)
    file = next(file for file in result.export(tmp_path, formats=("openvino",)) if file.suffix == ".xml")
    compiled = openvino.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # else bf16 where it is
    y = compiled(x.numpy())[0]
    np.testing.assert_allclose(y, result.model.eval()(x).detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_in_the_data_end_the_search_with_the_cure(value: float) -> None:
    shape = BACKBONES["wrn1d"]
    inputs = torch.randn(48, *shape)
    inputs[5, 0, 3] = value
    batches = DataLoader(TensorDataset(inputs, torch.arange(48) % 4), batch_size=16)
    model = shipped("wrn1d", shape)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError, match=r"(?i)nan|finite"):
        compressor.compress(
            model,
            torch.randn(2, *shape),
            {"flops": "200%"},
            data=from_loaders(batches, batches),
            search="dash",
            options={"share": 1.0},
            training=QUICK,
        )
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
