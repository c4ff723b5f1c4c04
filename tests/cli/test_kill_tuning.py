"""A job killed with -9 among its trials: its workers end, and run again it ends with the same bits and rows."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compressor.models import artifact

JOB = shlex.split(
    "--model resnet20_cifar --weights none --data digits --budget-flops 40% --search oneshot --train-epochs 1 "
    "--finetune-epochs 1 --tune.lr 0.1,0.03,0.01 --tune-epochs 4 --tune-samples 1 --distill 0.3 --bench-seconds 0 "
    "--export none"
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")]


def start(out: Path, workers: int, group: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "compressor", *JOB, "--trial-workers", str(workers), "--out", str(out)]
    # One thread, as a worker has a share of them: rounding goes with their number.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=group
    )


def outcome(out: Path) -> Any:
    tuning = artifact.load_report(out).tuning
    assert tuning is not None
    rows = [replace(trial, seconds=0.0) for trial in tuning.trials]
    return (out / "model.safetensors").read_bytes(), replace(tuning, trials=rows)


def finish(out: Path, workers: int) -> str:
    with start(out, workers) as process:
        _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def members(group: int) -> list[str]:
    """Living processes of a group."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [state for pgid, state in rows if int(pgid) == group and not state.startswith("Z")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(out, 1)
    return outcome(out)


@pytest.mark.parametrize(("workers", "kind"), [(2, signal.SIGKILL), (2, signal.SIGINT)])
def test_killed_among_its_trials(tmp_path: Path, undisturbed: Any, workers: int, kind: signal.Signals) -> None:
    out = tmp_path / "out"
    with start(out, workers, group=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("  trial "):
                break
        time.sleep(0.5)
        process.send_signal(kind)
        process.communicate(timeout=60)
        for _ in range(200):
            if not members(process.pid):
                break
            time.sleep(0.1)
        assert members(process.pid) == [], "workers end with their job"
    assert process.returncode == (-signal.SIGKILL if kind is signal.SIGKILL else 130)
    said = finish(out, workers)
    assert said.count("done before") >= 1
    assert outcome(out) == undisturbed
