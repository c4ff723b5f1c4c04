"""Three hundred command lines: one line of error each, an exit code as documented, and nothing left behind."""

from __future__ import annotations

import importlib
import importlib.util
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compressor.cli import main
from compressor.errors import CompressorError
from tests.cli.command_lines import CommandLines, lay_out

HERE = Path(__file__).parent
DOCUMENTED = {0, 1, 2, 3, 4, 5, 130}
COUNT = 300


class WorkBegan(CompressorError):
    """Raised where a command has checked everything and would now take its time."""


def begin(*_args: Any, **_rest: Any) -> Any:
    raise WorkBegan("Work begins.")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which commands stop where their work would begin."""
    from compressor.deploy import exports
    from compressor.deploy import timing as bench
    from compressor.latency import profile
    from compressor.latency.target import LatencySession
    from compressor.pipeline.stages import Pipeline
    from compressor.process import ray_cluster
    from profilers import registry

    for module, name in ((bench, "bench"), (exports, "export_all"), (profile, "profile"), (LatencySession, "__init__")):
        monkeypatch.setattr(module, name, begin)
    for name in ("train", "assess", "search"):
        monkeypatch.setattr(Pipeline, name, begin)
    monkeypatch.setattr(profile, "open_timer", begin)
    assert registry
    work = tmp_path / "work"
    work.mkdir()
    lay_out(work)
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COMPRESSOR_SERVER", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("COMPRESSOR_DATA_DIR", str(tmp_path / "service"))
    monkeypatch.setattr(ray_cluster, "import_ray", begin)
    for name, attribute in (("serve", "serve"), ("worker.loop", "Worker"), ("devices.agent", "Agent")):
        if importlib.util.find_spec("sqlalchemy") is not None:
            monkeypatch.setattr(importlib.import_module(f"compressor.service.{name}"), attribute, begin)
    return work


def entries(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def problem(code: int, out: str, err: str, left: set[str], line: list[str]) -> str | None:
    """What is wrong with how a command ended, if anything."""
    if code not in DOCUMENTED:
        return f"exit code {code}"
    if "Traceback" in err or "Unexpected" in err:
        return err[-400:]
    errors = [text for text in err.splitlines() if text.startswith("Error: ")]
    if code and code != 130 and len(errors) != 1:
        return f"{len(errors)} lines of error: {err[-300:]!r}"
    if "\x1b" in err or any(len(text) > 2000 for text in errors):
        return f"an unreadable line: {err[:200]!r}"
    # A table has its log and its gate beside it, also where it is one that is merged into another.
    table = "lut" in line or any("--lut" in word for word in line)
    left = {name for name in left if not table or not name.endswith((".lock", "-wal", "-shm"))}
    if left and not (code == 0 and any(name in word for name in left for word in line)):
        return f"left {sorted(left)[:5]}"
    return None


def test_every_command_line_ends_as_documented(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before, memory = entries(folder), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failures, codes = [], []
    for number, line in enumerate(CommandLines().lines(COUNT)):
        code = main(line)
        out, err = capfd.readouterr()
        now = entries(folder)
        found = problem(code, out, err, now - before, line)
        if found is not None:
            failures.append(f"{number}: {line} -> {found}")
        before |= now
        codes.append(code)
    assert not failures, "\n".join([f"{len(failures)} of {COUNT}", *failures[:20]])
    assert len(codes) == COUNT
    assert {0, 1, 2} <= set(codes), "some are done, some begin to work, some are refused"
    assert codes.count(1) >= 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 1_500_000  # KiB


@pytest.mark.slow
def test_so_do_processes_of_their_own(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    lay_out(work)
    before = entries(work)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    failures = []
    environment |= {"COMPRESSOR_SERVER": "http://127.0.0.1:9", "COMPRESSOR_DATA_DIR": str(tmp_path / "service")}
    lines = [each for each in CommandLines(seed=7).lines(60) if not any("\0" in word for word in each)]
    for line in [each for each in lines if not {"serve", "worker", "agent", "ray"} & set(each)][:15]:
        words = [os.fsencode(word.encode("utf-8", "replace").decode()) for word in line]
        found = subprocess.run(
            [sys.executable, "-m", "compressor", *words],
            cwd=work,
            env=environment,
            capture_output=True,
            timeout=120,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30)),
        )
        out, err = found.stdout.decode(errors="replace"), found.stderr.decode(errors="replace")
        left = entries(work) - before if found.returncode else set()
        said = problem(found.returncode, out, err, left, line)
        if said is not None:
            failures.append(f"{line} -> {said}")
        before |= entries(work)
    assert not failures, "\n".join(failures)
