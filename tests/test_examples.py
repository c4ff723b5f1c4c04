"""The examples run, and the documents name only what exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from torch import nn

import compressor
from compressor.cli.app import COMMANDS, group
from compressor.search import METHODS

ROOT = Path(__file__).resolve().parent.parent
NEEDS = {
    "lightning_callback": "lightning",
    "hf_trainer": "transformers",
    "accelerate_loop": "accelerate",
    "ultralytics_callbacks": "ultralytics",
    "service_client": "fastapi",
}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("compress_resnet", ["--epochs", "1", "--out", "small"], "exported small/model.onnx"),
        ("own_training_loop", ["--epochs", "2"], "after fine-tuning"),
        ("own_training_loop", ["--epochs", "2", "--search", "dnarch"], "after fine-tuning"),
        ("latency_budget", ["simulated"], "at most"),
        ("segmentation", ["--epochs", "1"], "overlap of regions"),
        ("make_shapes", ["drawn", "--train", "4", "--val", "2"], "wrote drawn"),
        ("detection", ["--epochs", "1", "--images", "16", "--side", "64"], "COCO mean average precision"),
        ("audio", ["--epochs", "1"], "tones that are told"),
        ("spoken_digits", ["--epochs", "1"], "words that are mistaken"),
        ("two_processes", ["--epochs", "1"], "2 processes kept"),
        ("sweep_budgets", ["--epochs", "1", "--out", "sweep"], "the best within 60 %"),
        ("vision_transformer", ["--epochs", "1", "--out", "vit"], "exported vit/model.onnx"),
        ("service_client", ["--epochs", "1", "--out", "half"], "half/model.onnx gives 10 scores"),
        ("lightning_callback", ["--epochs", "1"], "after fine-tuning"),
        ("hf_trainer", ["--epochs", "1", "--out", "bert"], "saved bert and loaded it again"),
        ("accelerate_loop", ["--epochs", "1"], "of 56714 parameters"),
        ("ultralytics_callbacks", ["--epochs", "1"], "of 3011238 parameters"),
    ],
)
def test_examples_run(tmp_path: Path, name: str, arguments: list[str], said: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    found = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert said in found.stdout


def test_every_example_is_tested() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {
        "compress_resnet",
        "own_training_loop",
        "latency_budget",
        "tensorrt_offline",
        "segmentation",
        "make_shapes",
        "detection",
        "audio",
        "spoken_digits",
        "sweep_budgets",
        "two_processes",
        "vision_transformer",
        *NEEDS,
    }


@pytest.mark.slow
def test_a_folder_packed_for_a_host_without_network_runs_on_its_own(tmp_path: Path) -> None:
    pack = [str(ROOT / "examples" / "tensorrt_offline.py"), "--model", "resnet20_cifar", "--budget", "60%", "bundle"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for command, there, path in ((pack, tmp_path, str(ROOT)), (["run.py", "simulated"], tmp_path / "bundle", "")):
        found = subprocess.run(
            [sys.executable, *command],
            cwd=there,
            env={**environment, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
    report = json.loads((tmp_path / "bundle" / "results.json").read_text(encoding="utf-8"))
    (budget,) = report["budgets"]
    assert 0.95 * budget["limit"] <= budget["reached"] <= budget["limit"]
    assert (tmp_path / "bundle" / "compressed" / "model.onnx").is_file()
    assert (tmp_path / "bundle" / "lut.sqlite").is_file()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_what_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    everything = group.get_params(click.Context(group))
    options = {"--help", *(option for each in everything for option in (*each.opts, *each.secondary_opts))}
    for command in COMMANDS:
        found = COMMANDS.get(command)
        for each in (found, *getattr(found, "commands", {}).values()):
            options |= {option for parameter in each.params for option in parameter.opts}
    assert {
        option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+(?:\.[a-z-]+)?", text) if option not in options
    } <= {"--coins.patience", "--nproc-per-node", "--no-deps"}  # of the plug-in that is shown, torchrun and pip
    for command in re.findall(r"^ *(?:- `)?compress ([a-z]\w*)", text, flags=re.MULTILINE):
        assert command in COMMANDS
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (document.parent / target).exists(), target


def test_the_command_line_document_is_complete() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert all(f"`compress {command}" in text for command in COMMANDS)
    assert all(f"`{method}`" in text for method in METHODS)


def test_what_the_page_on_dash_shows_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "dash.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == text.count("```python") > 1
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],  # as one script: a block goes on with what is above it
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("->") == 9  # three convolutions in each of three blocks


WHOLE = ("pooling", "sweep", "supernet")
"""Pages whose blocks stand for themselves."""
PARTS = {
    "README": (0, 1),
    "dnarch": (0,),
    "engines": (0,),
    "importance": (0,),
    "models": (0,),
    "own_loop": (0,),
    "recipes": (0,),
    "training": (0, 1),
}
"""Blocks that go on with the reader's own network and data, in one process and a short time."""


def blocks_of(page: str) -> list[str]:
    text = (ROOT / ("README.md" if page == "README" else f"docs/{page}.md")).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", WHOLE)
def test_what_pages_show_runs_as_it_stands(page: str) -> None:
    (block,) = blocks_of(page)
    exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("page", PARTS)
def test_what_pages_show_runs_with_a_network_and_data(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MyNet(nn.Sequential):
        def __init__(self) -> None:
            layers = {"conv1": nn.Conv2d(3, 32, 3), "relu": nn.ReLU(), "layer4": nn.Conv2d(32, 16, 3)}
            super().__init__(
                OrderedDict(layers, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(16, 10))
            )

    monkeypatch.chdir(tmp_path)
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in alone.items():  # as torchrun says it
        monkeypatch.setenv(name, value)
    Path("job.yaml").write_text(
        "{model: resnet20_cifar, weights: none, budgets: {flops: 50%}, bench_seconds: 0, export: none}"
    )
    torch.manual_seed(0)
    model, x = MyNet(), torch.randn(2, 3, 32, 32)
    batches = [(torch.randn(8, 3, 32, 32), torch.arange(8)) for _ in range(4)]
    names: dict[str, Any] = {
        "torch": torch, "nn": nn, "compressor": compressor, "MyNet": MyNet, "model": model, "x": x, "example_inputs": x,
        "train_loader": batches, "val_loader": batches, "loaders": (batches, batches), "batches": batches,
        "loader": batches, "epochs": 1, "criterion": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), 0.01),
    }  # fmt: skip
    if page == "engines":
        names["result"] = compressor.compress(model, x, {"flops": "50%"})
    made, short = compressor.Training, {"search_epochs": 1, "finetune_epochs": 1}
    monkeypatch.setattr(compressor, "Training", lambda **given: made(**{**given, **short}))
    for number in PARTS[page]:
        found = dict(names)
        exec(compile(blocks_of(page)[number], page, "exec"), found)
        reduced = found.get("small") or getattr(found.get("result"), "model", None)
        if reduced is not None:
            assert sum(p.numel() for p in reduced.parameters()) < sum(p.numel() for p in model.parameters())


def test_what_the_page_on_tracking_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "tracking.md", "exec"), {})
    assert list((tmp_path / "logs" / "tensorboard").iterdir())


def test_files_named_in_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert any((ROOT / base / name).exists() for base in ("", "compressor", "compressor/search")), name
