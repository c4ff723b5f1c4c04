"""The whole job, killed with -9 in every stage, ends with the bits of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compressor.models import artifact

STAGES = ("train", "search", "trim and verify", "finetune", "export and benchmark")
JOB = shlex.split(
    "--model resnet20_cifar --weights none --data digits --budget-flops 40% --budget-params 60% "
    "--search figs --figs.least-steps 0 --train-epochs 2 --search-epochs 2 --finetune-epochs 2 "
    "--distill 0.3 --bench-seconds 0.2 --seed 3"
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")]


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "compressor", *JOB, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(out: Path) -> None:
    with start(out) as process:
        _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said


def kill_in(stage: str, out: Path, delay_s: float) -> bool:
    """Start the job and kill it ``delay_s`` after the stage began; False if the job was over before."""
    with start(out) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"{stage} ..."):
                time.sleep(delay_s)
                process.send_signal(signal.SIGKILL)
                break
        process.wait(timeout=600)
    return process.returncode == -signal.SIGKILL


def outcome(out: Path) -> dict[str, Any]:
    """What must not depend on kills: the weights' bits, the decision, the accuracies, the search's history."""
    architecture = json.loads((out / "architecture.json").read_text())
    report = artifact.load_report(out)
    return {
        "weights": (out / "model.safetensors").read_bytes(),
        "architecture": architecture,
        "accuracy": report.accuracy,
        "history": report.history,
        "budgets": report.budgets,
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(out)
    return outcome(out)


def test_killed_in_every_stage(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    out = tmp_path / "out"
    moments = random.Random(0)
    killed = [kill_in(stage, out, moments.uniform(0.0, 1.2)) for stage in STAGES]
    assert killed.count(True) >= 3, "short stages may be over before the signal arrives"
    assert not list(out.glob("*.html")), "the report is written last"
    finish(out)
    told = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert len({event["run"] for event in told if event["event"] == "JobBegan"}) == 1
    assert told[-1]["status"] == "done"
    found = outcome(out)
    assert found.pop("weights") == undisturbed["weights"]
    assert found == {name: value for name, value in undisturbed.items() if name != "weights"}
    assert not list(out.rglob("*.tmp*"))
    assert not list((out / ".job" / "checkpoints").iterdir())


def test_killed_again_and_again_at_random(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    out = tmp_path / "out"
    moments = random.Random(9)
    for _ in range(4):
        with start(out) as process:
            assert process.stderr is not None
            process.stderr.readline()  # imports are over
            try:
                process.wait(timeout=moments.uniform(0.2, 6.0))
            except subprocess.TimeoutExpired:
                process.kill()
    finish(out)
    assert outcome(out) == undisturbed
