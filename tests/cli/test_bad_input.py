"""The main job on input it cannot use: the exit code, one line that says what to do, and nothing left half written."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from compressor.cli import main
from compressor.models import artifact

HERE = Path(__file__).parent
SMALL = ["--weights", "none", "--input-shape", "1,8,8", "--export", "none", "--bench-seconds", "0", "--quiet"]
DIGITS = ["--weights", "none", "--data", "digits", "--export", "none", "--bench-seconds", "0", "--quiet"]
HALF = ["--budget-flops", "50%"]
FILES = {"architecture.json", "model.safetensors", "report.json", "report.html"}
SAID = {"recipe.yaml", "events.jsonl"}  # what was asked for and what happened: nothing of a result


class Evil:
    """Makes a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def failing(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """Run a job that must fail with ``code``; returns its line. A folder that held nothing must not be left."""
    assert main(list(arguments)) == code
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("Warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (2, ["--model", "resnet5O", *SMALL, *HALF], "resnet50"),
        (2, ["--model", "job_networks:plan", *SMALL, *HALF], "'plain'"),
        (2, ["--model", "no_such_module:plan", *SMALL, *HALF], "no_such_module"),
        (4, ["--model", "job_networks:factory_raises", *SMALL, *HALF], "RuntimeError: no such luck"),
        (2, ["--model", "job_networks:returns_a_number", *SMALL, *HALF], "torch.nn.Module"),
        (2, ["--model", "job_networks:plain", *SMALL, "--budget-flops", "2X"], "2G, 500M"),
        (2, ["--model", "job_networks:plain", *SMALL, "--budget-params", "0%"], "above zero"),
        (3, ["--model", "job_networks:plain", *SMALL, "--budget-flops", "0.01%"], "smallest"),
        (3, ["--model", "job_networks:plain", *SMALL, "--budget-memory", "1B"], "smallest"),
        (3, ["--model", "job_networks:plain", *DIGITS, "--budget-params", "1"], "smallest"),
        (
            3,
            ["--model", "job_networks:plain", *DIGITS, "--budget-params", "1", "--train-epochs", "99"],
            "smallest",
        ),
        (
            2,
            ["--model", "job_networks:plain", *DIGITS, *HALF, "--train-epochs", "99", "--exclude", "frist"],
            "first",
        ),
        (
            2,
            ["--model", "job_networks:plain", *DIGITS, *HALF, "--train-epochs", "99", "--keep", "first=99"],
            "has 16",
        ),
        (
            2,
            ["--model", "job_networks:plain", *DIGITS, *HALF, "--train-epochs", "99", "--distill", "3"],
            "from 0 to 1",
        ),
        (4, ["--model", "job_networks:raises", *SMALL, *HALF], "ValueError: no luck"),
        (4, ["--model", "job_networks:raises", *DIGITS, *HALF], "ValueError: no luck"),
        (4, ["--model", "job_networks:empty", *SMALL, *HALF], "no parameters"),
        (4, ["--model", "job_networks:fixed", *SMALL, *HALF], "held fixed"),
        (4, ["--model", "job_networks:plain", *SMALL, *HALF, "--input-shape", "3,8,8"], "channels"),
        (2, ["--model", "job_networks:plain", *DIGITS, *HALF, "--input-shape", "3,8,8"], "1x8x8"),
        (2, ["--model", "job_networks:plain", *SMALL, *HALF, "--exclude", "frist"], "first"),
        (2, ["--model", "job_networks:plain", *SMALL, *HALF, "--include", "nothing*"], "include"),
        (2, ["--model", "job_networks:plain", *SMALL, *HALF, "--search", "fig"], "figs"),
        (2, ["--model", "job_networks:plain", *SMALL, *HALF, "--search", "figs"], "--data"),
        (2, ["--model", "job_networks:plain", *SMALL, *HALF, "--weights", "no-such.pt"], "does not exist"),
        (2, ["--model", "job_networks:plain", *SMALL, *HALF, "--data", "cifar10:/no/such"], "/no/such"),
        (2, ["--model", "job_networks:plain", *SMALL, *HALF, "--data", "digit"], "digits"),
    ],
)
def test_one_line_and_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, arguments: list[str], said: str
) -> None:
    assert said in failing(capsys, code, *arguments, "--out", str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_network_that_never_computes_the_same_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "random" in failing(capsys, 5, "--model", "job_networks:random", *SMALL, *HALF, "--out", str(out))
    assert {path.name for path in out.iterdir()} <= {".job", *SAID}


def weights(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind == "other.safetensors":
        save_file({"first.weight": torch.ones(2, 2), "strange": torch.ones(1)}, path)
    elif kind == "other.pt":
        torch.save({"first.weight": torch.ones(2, 2), "strange": torch.ones(1)}, path)
    elif kind == "evil.pt":
        torch.save({"first.weight": Evil(folder / "ran")}, path)
    elif kind == "evil.pth":
        path.write_bytes(pickle.dumps(Evil(folder / "ran")))
    else:
        path.write_bytes(b"no weights at all")
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("other.safetensors", "strange"),
        ("other.pt", "first.weight [2, 2] for [16, 1, 3, 3]"),
        ("evil.pt", "refused"),
        ("evil.pth", "refused"),
        ("garbage.safetensors", "garbage.safetensors"),
        ("garbage.pt", "garbage.pt"),
    ],
)
def test_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, said: str) -> None:
    path = weights(kind, tmp_path)
    out = tmp_path / "out"
    arguments = ["--model", "job_networks:plain", *SMALL, *HALF, "--weights", str(path), "--out", str(out)]
    assert said in failing(capsys, 2, *arguments)
    assert not (tmp_path / "ran").exists()
    assert not out.exists()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_train": np.zeros((20, 8, 8), np.float32), "y_train": np.zeros(19, np.int64)}, "[19]"),
        ({"x_train": np.zeros((20, 8, 8), np.float32)}, "y_train"),
        ({"x_train": np.array([{}], dtype=object), "y_train": np.zeros(1, np.int64)}, "plain number arrays"),
        ({"x_train": np.zeros((40, 3, 8, 8), np.float32), "y_train": np.arange(40) % 10}, "channels"),
        ({"x_train": np.zeros((40, 1, 8, 8), np.float32), "y_train": np.arange(40) % 20}, "10"),
    ],
)
def test_data_that_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arrays: dict[str, Any], said: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    arguments = [
        "--model",
        "job_networks:plain",
        "--weights",
        "none",
        "--export",
        "none",
        "--bench-seconds",
        "0",
    ]
    arguments += ["--data", f"npz:{tmp_path / 'data.npz'}", "--search-epochs", "1", "--finetune-epochs", "1", "--quiet"]
    assert main([*arguments, *HALF, "--out", str(tmp_path / "out")]) in (2, 4)
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert [line.startswith("Warning: ") for line in err.splitlines()].count(False) == 1
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_corrected_option_goes_on_in_the_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "job_networks:plain", *SMALL, "--out", str(tmp_path / "out")]
    failing(capsys, 3, *arguments, "--budget-flops", "0.01%")
    assert main([*arguments, *HALF]) == 0
    assert {entry.name for entry in (tmp_path / "out").iterdir()} - SAID == {*FILES, ".job"}


def test_folder_of_another_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--model", "job_networks:plain", *SMALL, "--out", str(out)]
    assert main([*arguments, *HALF]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    capsys.readouterr()
    assert "--force" in failing(capsys, 2, *arguments, "--budget-flops", "60%")
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert main([*arguments, *HALF]) == 0, "the same job shows its report again"
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert main([*arguments, "--budget-flops", "60%", "--force"]) == 0
    assert artifact.load_report(out).budgets[0].asked == "60%"


def test_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    arguments = ["--model", "job_networks:plain", *SMALL, *HALF, "--out"]
    assert "thesis.tex" in failing(capsys, 2, *arguments, str(tmp_path))
    assert "is a file" in failing(capsys, 2, *arguments, str(tmp_path / "thesis.tex"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("thesis.tex", "precious")]


@pytest.mark.parametrize("budget", ["100%", "2T"])
def test_budget_above_the_original_changes_nothing_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], budget: str
) -> None:
    out = tmp_path / "out"
    arguments = ["--model", "job_networks:plain", *DIGITS, "--budget-flops", budget, "--out", str(out)]
    assert main([*arguments, "--format", "json"]) == 0
    stdout, err = capsys.readouterr()
    assert "Nothing to do" in err
    document = json.loads(stdout)
    (asked,) = document["budgets"]
    assert asked["reached"] == asked["original"] <= asked["limit"]
    assert document["verification"]["error"] == 0
    assert document["accuracy"]["after_search"] == document["accuracy"]["before"]
    assert main(["report", str(out)]) == 0
    assert "Nothing was removed" in capsys.readouterr().out.splitlines()[0]
    assert artifact.load(out, trust_factories=("job_networks",)) is not None


@pytest.mark.parametrize("search", ["oneshot", "figs"])
def test_nan_loss_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], search: str
) -> None:
    out = tmp_path / "out"
    arguments = ["--model", "job_networks:turns_nan", *DIGITS, *HALF, "--search", search, "--out", str(out)]
    arguments += ["--train-epochs", "2"] if search == "oneshot" else ["--search-epochs", "2", "--figs.least-steps", "0"]
    line = failing(capsys, 1, *arguments)
    assert "nan at step 31" in line
    stage = "train" if search == "oneshot" else "search.decided"  # the second part of a search, just begun
    checkpoint = out / ".job" / "checkpoints" / f"{stage}.safetensors"
    assert str(checkpoint) in line
    assert checkpoint.stat().st_size > 0
    assert not (out / "model.safetensors").exists()


@pytest.mark.parametrize("form", ["dict", "tuple", "nested"])
def test_outputs_in_dicts_and_tuples_work_to_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    out = tmp_path / "out"
    arguments = [
        "--model",
        f"job_networks:returns_{form}",
        "--weights",
        "none",
        "--data",
        "digits",
        *HALF,
        "--quiet",
    ]
    arguments += ["--search-epochs", "1", "--finetune-epochs", "1", "--bench-seconds", "0.2", "--out", str(out)]
    assert main([*arguments, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["budgets"][0]["reached"] <= document["budgets"][0]["limit"]
    assert document["accuracy"]["after_finetune"] is not None
    assert document["latencies"]
    assert (out / "model.onnx").stat().st_size > 0
    (exported,) = [file for file in document["files"] if file["format"] == "onnx"]
    assert exported["error"] < 1e-4
    found = artifact.load(out, trust_factories=("job_networks",))(torch.zeros(2, 1, 8, 8))
    assert isinstance(found, tuple if form == "tuple" else dict)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "compressor", *arguments]


def test_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path) -> None:
    """A limit on file sizes stands in for a disk that fills while the weights are written."""
    out = tmp_path / "out"
    found = subprocess.run(
        command("--model", "job_networks:plain", *SMALL, *HALF, "--out", str(out)),
        cwd=HERE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert found.stdout == ""
    assert "Traceback" not in found.stderr
    assert found.stderr.splitlines()[-1].startswith("Error: Cannot write")
    assert "space" in found.stderr
    assert {path.name for path in out.iterdir()} <= {".job", *SAID}
    assert not list(out.rglob("*.tmp*"))
    assert main(["--model", "job_networks:plain", *SMALL, *HALF, "--out", str(out)]) == 0, "once there is space"


@pytest.mark.skipif(os.name != "posix", reason="signals are a POSIX matter")
def test_interrupt_is_one_line_and_the_job_can_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [
        "--model",
        "job_networks:plain",
        *DIGITS,
        *HALF,
        "--train-epochs",
        "5000",
        "--search",
        "oneshot",
    ]
    arguments += ["--finetune-epochs", "0", "--out", str(out)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in the background of a shell inherit deafness
    with subprocess.Popen(
        command(*arguments), cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        deadline = time.monotonic() + 120
        checkpoint = out / ".job" / "checkpoints" / "train.safetensors"
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    (line,) = [line for line in stderr.splitlines() if line and not line.startswith("Warning: ")]
    assert "go on" in line
    assert checkpoint.exists()
