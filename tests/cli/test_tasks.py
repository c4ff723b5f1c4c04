"""The whole job on other tasks than images: signals, tokens, fields; exported, and reported under the right name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import compressor
from compressor.cli import main
from compressor.costs import build
from compressor.graph import capture
from compressor.models import artifact
from compressor.models.example_inputs import make_inputs
from tests.cli import task_networks

RNG = np.random.default_rng(0)
TRUSTED = ("task_networks",)
DATA = os.environ.get("COMPRESSOR_DATA", "")
QUICK = ["--search-epochs", "1", "--finetune-epochs", "1", "--bench-seconds", "0", "--batch-size", "16", "--quiet"]


def job(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> dict[str, Any]:
    """Run the job; returns its report. The budget holds and the exported network equals PyTorch's."""
    quick = [] if "--search-epochs" in arguments else QUICK
    assert main([*arguments, *quick, "--budget-flops", "50%", "--out", str(out), "--format", "json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    (budget,) = document["budgets"]
    assert budget["reached"] <= budget["limit"]
    (exported,) = [file for file in document["files"] if file["format"] == "onnx"]
    assert exported["error"] < 1e-4
    return document


def run_onnx(out: Path, inputs: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    return torch.from_numpy(np.asarray(found))


def write_speech(root: Path, length: int = 64, takes: int = 20) -> None:
    digits = np.arange(10 * takes) % 10
    x = np.sin(np.arange(length) * (0.1 + 0.2 * digits[:, None])).astype(np.float32)
    speaker = np.array(["ann"] * len(digits))
    np.savez(root / "fsdd.npz", x=x, y=digits, speaker=speaker, take=np.arange(len(digits)) // 10)


def write_darcy(root: Path) -> None:
    parts = {"train": (20, 16), "test": (3, 16), "test32": (3, 32)}
    arrays = {f"x_{part}": RNG.random((n, side, side)) < 0.5 for part, (n, side) in parts.items()}
    arrays |= {f"y_{part}": RNG.random((n, side, side)) for part, (n, side) in parts.items()}
    np.savez(root / "darcy.npz", **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_signals(tmp_path: Path, capsys: pytest.CaptureFixture[str], search: str) -> None:
    write_speech(tmp_path)
    out = tmp_path / "out"
    arguments = ["--model", "task_networks:sequence", "--data", f"fsdd:{tmp_path}", "--search", search]
    document = job(capsys, out, *arguments)
    assert document["accuracy"]["metric"] == "top-1 accuracy"
    assert document["accuracy"]["lower_is_better"] is False
    assert document["prediction_error"] is None
    assert document["input_shape"] == [1, 64]
    x = torch.randn(3, 1, 64)
    assert torch.allclose(run_onnx(out, x), artifact.load(out, trust_factories=TRUSTED)(x), atol=1e-4)


def test_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--model", "task_networks:sequence", "--data", "listops:n=64,length=24", "--search", "figs"]
    document = job(capsys, out, *arguments)
    assert document["accuracy"]["samples"] == 6
    manifest = artifact.read_manifest(out)
    (x,) = make_inputs(manifest.inputs, batch=3).tensors
    assert (x.shape, x.dtype) == ((3, 24), torch.int64)
    assert manifest.description is not None
    assert manifest.description["kwargs"] == {"num_classes": 10, "vocabulary": 16}
    x = torch.randint(16, (3, 24))
    assert torch.allclose(run_onnx(out, x), artifact.load(out, trust_factories=TRUSTED)(x), atol=1e-4)


def test_tokens_of_a_loader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = job(
        capsys,
        tmp_path / "out",
        "--model",
        "task_networks:sequence",
        "--data",
        "task_networks:pairs",
    )
    assert document["accuracy"]["split"] == "val"


def write_fields(file: Path) -> None:
    x = RNG.normal(size=(60, 2, 8, 8)).astype(np.float32)
    y = x[:, 0] + 0.5 * x[:, 1]
    np.savez(file, x_train=x[:50], y_train=y[:50], x_test=x[50:], y_test=y[50:])


@pytest.mark.parametrize("search", ["oneshot", "figs", "dnarch"])
def test_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str], search: str) -> None:
    write_fields(tmp_path / "d.npz")
    out = tmp_path / "out"
    arguments = ["--model", "task_networks:field", "--data", f"npz:{tmp_path / 'd.npz'}", "--search", search]
    document = job(capsys, out, *arguments)
    error = document["prediction_error"]
    assert document["accuracy"] is None
    assert (error["metric"], error["lower_is_better"], error["samples"]) == ("relative L2 error", True, 10)
    assert 0 < error["after_finetune"] < 1.5
    assert main(["report", str(out)]) == 0
    text = capsys.readouterr().out
    assert "relative L2 error, lower is better, test of 10" in text
    assert "accuracy" not in text.lower()
    page = (out / "report.html").read_text()
    assert "Relative L2 error on 10 samples of the test split; lower is better." in page
    assert "accuracy" not in page.lower().replace("is real, accuracy is not", "").replace("benchmarks/accuracy/", "")
    x = torch.randn(3, 2, 8, 8)
    assert torch.allclose(run_onnx(out, x), artifact.load(out, trust_factories=TRUSTED)(x), atol=1e-4)


def test_classes_at_every_position(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = RNG.normal(size=(60, 2, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=(x[:, 0] > 0) + (x[:, 1] > 1).astype(np.int64))
    arguments = ["--model", "task_networks:field", "--data", f"npz:{tmp_path / 'd.npz'}", "--distill", "0.5"]
    document = job(capsys, tmp_path / "out", *arguments, "--search", "figs")
    assert document["accuracy"]["metric"] == "top-1 accuracy per position"
    assert document["accuracy"]["samples"] == 6
    assert document["prediction_error"] is None
    assert artifact.load(tmp_path / "out", trust_factories=TRUSTED)(torch.randn(2, 2, 8, 8)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("search", ["oneshot", "figs"])
def test_loaders_of_values_and_a_loss_of_ones_own(search: str) -> None:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    batches = [(x[i : i + 10], x[i : i + 10, :2].sum(1)) for i in range(0, 40, 10)]
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

    def run(**settings: Any) -> Any:
        settings |= {"search": search, "search_epochs": 1, "finetune_epochs": 1}
        return compressor.compress(model, x[:1], {"flops": "50%"}, data=(batches, batches), **settings).report.score

    own = run()
    assert (own.metric, own.samples) == ("mean squared error", 40)
    other = run(loss_fn=lambda out, y: (out[:, 0] - y).abs().mean())
    assert other.metric == "loss"
    with torch.no_grad():
        difference = model(x)[:, 0] - x[:, :2].sum(1)
    assert own.before == pytest.approx(float(difference.square().mean()), rel=1e-5)
    assert other.before == pytest.approx(float(difference.abs().mean()), rel=1e-5)


def test_a_saved_network_can_be_compressed_again_with_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fields(tmp_path / "d.npz")
    data = ["--data", f"npz:{tmp_path / 'd.npz'}", "--search", "oneshot", "--distill", "0.5"]
    job(capsys, tmp_path / "one", "--model", "task_networks:field", *data)
    document = job(
        capsys, tmp_path / "two", "--model", str(tmp_path / "one"), "--trust-factories", "task_networks", *data
    )
    assert document["prediction_error"]["after_finetune"] is not None


@pytest.mark.parametrize(
    ("code", "model", "data", "said"),
    [
        (2, "resnet20_cifar", "listops:n=20,length=16", "resnet20_cifar takes no tokens"),
        (2, "resnet20_cifar", "npz:{}/d.npz", "resnet20_cifar predicts one class and no field"),
        (2, "resnet20_cifar", "fsdd:{}", "takes inputs of 3 axes, such as 1x32x32, not 1x64"),
        (2, "resnet18", "fsdd:{}", "resnet18 takes images or clips, not inputs of shape 1x64"),
        (2, "resnet18", "listops:n=20,length=16", "resnet18 takes images or clips, not inputs of shape 16"),
        (2, "resnet18", "npz:{}/d.npz", "but the model's output has"),
        (2, "ccnn_4_140", "fsdd:{}", "takes inputs of shape (channels, height, width), not (1, 64)"),
        (2, "ccnn_4_140_1d", "npz:{}/d.npz", "takes inputs of shape (channels, length), or (length,) of tokens"),
        (2, "task_networks:wrong_field", "npz:{}/d.npz", "but the model's output has"),
        (2, "task_networks:sequence", "listops:n=20,long=16", "no option 'long'"),
    ],
)
def test_networks_that_do_not_fit_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, model: str, data: str, said: str
) -> None:
    write_fields(tmp_path / "d.npz")
    write_speech(tmp_path)
    out = tmp_path / "out"
    arguments = ["--model", model, "--weights", "none", "--data", data.format(tmp_path), *QUICK]
    assert main([*arguments, "--budget-flops", "50%", "--out", str(out)]) == code
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("model", "data", "metric"),
    [
        ("ccnn_4_140_1d", "fsdd:{}", "top-1 accuracy"),
        ("ccnn_4_140_1d", "listops:n=40,length=12", "top-1 accuracy"),
        ("ccnn_4_140", "npz:{}/d.npz", "relative L2 error"),
    ],
)
def test_continuous_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, data: str, metric: str
) -> None:
    """Made for the data, trained, searched, exported, and built again from the folder."""
    write_speech(tmp_path, length=16, takes=8)
    write_fields(tmp_path / "d.npz")
    out = tmp_path / "out"
    arguments = ["--model", model, "--data", data.format(tmp_path), "--search", "dnarch", "--train-epochs", "1"]
    document = job(capsys, out, *arguments)
    (score,) = [found for found in (document["accuracy"], document["prediction_error"]) if found]
    assert score["metric"] == metric
    assert document["pretrained"]
    assert document["trained_epochs"] > 0
    manifest = artifact.read_manifest(out)
    (x,) = make_inputs(manifest.inputs, batch=2).tensors
    loaded = artifact.load(out)
    assert torch.allclose(run_onnx(out, x), loaded(x), atol=1e-4)
    assert loaded(x).shape[1] == (1 if metric.startswith("relative") else 10)


def test_a_network_that_may_grow_is_compared_with_its_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_speech(tmp_path, length=16, takes=8)
    arguments = [
        "--model",
        "task_networks:growing",
        "--data",
        f"fsdd:{tmp_path}",
        "--search",
        "dnarch",
        "--grow",
        "2",
    ]
    document = job(capsys, tmp_path / "out", *arguments)
    base = task_networks.growing(10, 1)
    macs = build("flops", capture(base, torch.randn(1, 1, 16))).original
    (budget,) = document["budgets"]
    assert (budget["original"], budget["limit"]) == (macs, macs / 2)
    assert next(c for c in document["costs"] if c["name"] == "flops")["original"] == macs
    size = document["sizes"][0]
    assert size["original_bytes"] == 4 * sum(p.numel() for p in base.parameters())


def test_a_weight_of_the_cost_that_rises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_fields(tmp_path / "d.npz")
    arguments = [
        "--model",
        "task_networks:field",
        "--data",
        f"npz:{tmp_path / 'd.npz'}",
        "--search",
        "dnarch",
    ]
    job(capsys, tmp_path / "out", *arguments, "--penalty", "5", "--penalty-ramp", "0.5")
    lonely = [*arguments, *QUICK, "--budget-flops", "50%", "--out", str(tmp_path / "other"), "--penalty-ramp", "0.5"]
    assert main(lonely) == 2
    assert "beside a penalty" in capsys.readouterr().err


def test_a_search_is_compiled_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_fields(tmp_path / "d.npz")
    arguments = [
        "--model",
        "task_networks:field",
        "--data",
        f"npz:{tmp_path / 'd.npz'}",
        "--search",
        "dnarch",
    ]
    arguments += ["--learn", "width", "--compiler"]
    job(capsys, tmp_path / "out", *arguments, "eager")
    assert main([*arguments, "nope", *QUICK, "--budget-flops", "50%", "--out", str(tmp_path / "other")]) == 2
    assert "no backend 'nope' here; it has" in capsys.readouterr().err


def test_a_learned_resolution_is_for_one_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_darcy(tmp_path)
    arguments = ["--model", "ccnn_4_140", "--weights", "none", "--data", f"darcy:{tmp_path},32", "--search", "dnarch"]
    assert main([*arguments, *QUICK, "--budget-flops", "50%", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "inputs of 32x32" in said
    assert "--dnarch.learn depth,kernel,width" in said


@pytest.mark.skipif(not DATA, reason="COMPRESSOR_DATA names no folder with real data")
def test_real_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    document = job(capsys, out, "--model", "task_networks:field", "--data", f"darcy:{DATA}", "--search", "dnarch")
    assert document["prediction_error"]["samples"] == 50
    assert document["prediction_error"]["after_finetune"] < 1
