"""A sweep killed with -9 between its points: workers end, and run again it goes on without redoing what is done."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compressor.storage.reading import read_json
from tests.cli.test_kill_tuning import members

SWEEP = shlex.split(
    "sweep --model resnet20_cifar --weights none --data digits --search figs --budgets flops=30%,60% --seeds 0,1 "
    "--train-epochs 1 --search-epochs 1 --finetune-epochs 1 --export none"
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")]


def start(out: Path, workers: int, group: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "compressor", *SWEEP, "--workers", str(workers), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=group
    )


def finish(out: Path, workers: int) -> str:
    with start(out, workers) as process:
        _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def finished(out: Path) -> dict[str, int]:
    """When each point that says it is done ended: a report alone may be of a point caught at its very last step."""
    marked = [path.parents[2] for path in out.glob("*/.job/stages/report.json")]
    return {folder.name: (folder / "report.json").stat().st_mtime_ns for folder in marked}


def outcome(out: Path) -> Any:
    front = read_json(out / "front.json", "run again")
    rows = [{k: v for k, v in point.items() if k != "seconds"} for point in front["points"]]
    return rows, [(out / row["name"] / "model.safetensors").read_bytes() for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(out, 1)
    return outcome(out)


@pytest.mark.parametrize(("workers", "kind"), [(2, signal.SIGKILL), (2, signal.SIGINT)])
def test_killed_between_its_points(tmp_path: Path, undisturbed: Any, workers: int, kind: signal.Signals) -> None:
    out = tmp_path / "out"
    with start(out, workers, group=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " is done (1 of 4)" in line:
                break
        process.send_signal(kind)
        process.communicate(timeout=60)
        for _ in range(200):
            if not members(process.pid):
                break
            signal.sigtimedwait([], 0.1)
        assert members(process.pid) == [], "workers end with the sweep"
    assert process.returncode == (-signal.SIGKILL if kind is signal.SIGKILL else 130)
    done = finished(out)
    assert 1 <= len(done) < 4
    finish(out, workers)
    assert outcome(out) == undisturbed
    again = finished(out)
    assert {name: again[name] for name in done} == done, "what is done is not done again"
