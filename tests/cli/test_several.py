"""The main job on several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compressor.cli import main
from compressor.errors import UsageError
from compressor.models import artifact
from compressor.process.environment import launched_rank, launched_size, own_device
from tests.cli.several_killed import JOB

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("COMPRESSOR_KILLS", "0"))
POSIX = pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def start(*words: str, size: int = 2) -> subprocess.CompletedProcess[str]:
    """Under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    return subprocess.run(
        [*command, "-m", "compressor", *words], capture_output=True, text=True, env=environment(), timeout=900
    )


def outcome(out: Path) -> dict[str, Any]:
    """What kills must not change."""
    report = artifact.load_report(out)
    return {
        "weights": (out / "model.safetensors").read_bytes(),
        "architecture": json.loads((out / "architecture.json").read_text()),
        "accuracy": report.accuracy,
        "history": report.history,
    }


@pytest.mark.slow
def test_two_processes_do_the_job_of_one(tmp_path: Path) -> None:
    found = start(*JOB, "--out", str(tmp_path / "two"), "--format", "json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["model"], "one document, of the first process"
    assert found.stderr.count("search ...") == 1
    assert main([*JOB, "--out", str(tmp_path / "one"), "--quiet"]) == 0
    two, one = outcome(tmp_path / "two"), outcome(tmp_path / "one")
    assert len(two["history"]) == len(one["history"])
    assert abs(two["accuracy"].after_finetune - one["accuracy"].after_finetune) < 0.3  # dropout is not the same
    wrong = start("sweep", "--model", "resnet18", "--budgets", "flops=50%")
    assert wrong.returncode != 0
    assert wrong.stderr.count("compress sweep runs in one process") == 1


@pytest.mark.slow
@POSIX
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not KILLS, reason="takes many minutes; COMPRESSOR_KILLS=20 kills each job twenty times")
@pytest.mark.parametrize(
    ("size", "words"),
    [
        (2, ""),
        (2, "--amp"),
        (1, "--amp --compile"),
        (2, "--compile --model tests.cli.several_killed:unlike"),
    ],
)
def test_whichever_is_killed_the_other_ends_and_both_go_on(tmp_path: Path, size: int, words: str) -> None:
    command = [sys.executable, "-m", "tests.cli.several_killed", str(tmp_path), str(size), str(KILLS), "1"]
    found = subprocess.run(
        [*command, *words.split()], capture_output=True, text=True, env=environment(), timeout=3600, cwd=ROOT
    )
    assert found.returncode == 0, found.stderr
    undisturbed, *killed, last = [json.loads(line) for line in found.stdout.splitlines()]
    assert undisturbed["codes"] == last["codes"] == [0] * size
    assert not undisturbed["as_written"]
    assert {each["digest"] for each in (undisturbed, *killed, last)} - {None} == {undisturbed["digest"]}
    for attempt in (each for each in killed if each["killed"]):
        assert -9 in attempt["codes"]
        if attempt["codes"].count(-9) == 1 and 1 in attempt["codes"]:
            assert "has ended or cannot be reached" in attempt["said"] or not attempt["said"]
    assert outcome(tmp_path / "killed" / "out") == outcome(tmp_path / "alone" / "out")


def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched_size() == 1
    said = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert (launched_size(), launched_rank()) == (2, 1)
    assert own_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="is one device, and 2 processes train together"):
        own_device("cuda:0")
    with pytest.raises(UsageError, match="is one device"):
        own_device("mps")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(UsageError, match="Process 99 of this machine has no GPU of its own"):
        own_device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UsageError, match="names no process of a group"):
        launched_size()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--accumulate 0", "whole number from 1"),
        ("--clip-norm 0", "number above zero"),
        ("--accumulate 1.5", "whole number"),
    ],
)
def test_bad_numbers_are_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = shlex.split(f"--model resnet20_cifar --data digits --budget-flops 50% {words}")
    assert main(given) == 2
    assert said in capsys.readouterr().err
