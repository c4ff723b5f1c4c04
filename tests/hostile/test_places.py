"""Outputs that are no files, streams that are closed or full, code that ends the program, and what kills leave."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.report import Report
from compressor.storage.files import atomic_write_text
from compressor.storage.job import Job

pytestmark = pytest.mark.skipif(os.name != "posix", reason="devices and links are a POSIX matter")
JOB = ["--weights", "none", "--input-shape", "3,8,8", "--budget-flops", "50%", "--export", "none"]
JOB += ["--bench-seconds", "0", "--quiet"]


@pytest.mark.parametrize("special", ["pipe", "device", "folder", "dangling", "loop"])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, special: str) -> None:
    place = tmp_path / "page.html"
    if special == "pipe":
        os.mkfifo(place)
    elif special == "folder":
        place.mkdir()
    else:
        place.symlink_to({"device": "/dev/null", "dangling": tmp_path / "none", "loop": place}[special])
    before = os.lstat(place)
    with pytest.raises(CompressorError, match="Cannot write"):
        atomic_write_text(place, "text")
    after = os.lstat(place)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_modes_stay_and_links_stay_links(tmp_path: Path, mode: int) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(mode)
    (tmp_path / "link").symlink_to("real")
    atomic_write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == mode


@pytest.mark.parametrize("what", ["lock", ".", "stages", "checkpoints", "content"])
def test_links_in_a_job_never_reach_what_they_point_to(tmp_path: Path, what: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    out = tmp_path / "out"
    out.mkdir()
    if what == ".":
        (out / ".job").symlink_to(precious)
    else:
        (out / ".job").mkdir()
        if what == "content":
            os.link(precious / "thesis.tex", out / ".job" / "lock")
        else:
            (out / ".job" / what).symlink_to(precious / "thesis.tex" if what == "lock" else precious)
    with pytest.raises(UsageError, match="delete it"):
        Job.open(out, {"a": 1}, force=True)
    assert (precious / "thesis.tex").read_text() == "years of work"


def test_what_killed_writers_left_is_gone_and_living_ones_keep_theirs(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        out = tmp_path / "out"
        Job.open(out, {"a": 1}).close()
        for pid in (ended.pid, living.pid):
            (out / f".model.{pid}-ab12.tmp.safetensors").write_text("half")
            (out / f".model.onnx.{pid}-x_1.tmp").mkdir()
        (out / ".tmpAb12Cd").write_text("half")
        with Job.open(out, {"a": 1}):
            pass
        left = sorted(entry.name for entry in out.iterdir())
        assert left == [".job", f".model.{living.pid}-ab12.tmp.safetensors", f".model.onnx.{living.pid}-x_1.tmp"]
        living.communicate(b"\n")


def test_folders_on_the_way_to_a_job_that_failed_are_gone(tmp_path: Path) -> None:
    (tmp_path / "compressed").mkdir()  # of a job that was killed
    for out in (tmp_path / "a" / "b" / "out", tmp_path / "compressed" / "out"):
        with pytest.raises(ValueError, match="mistyped"), Job.open(out, {"a": 1}):
            raise ValueError("mistyped")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ends", ["SystemExit(0)", "SystemExit()", "GeneratorExit()", "EOFError()", "BaseException('x')"]
)
@pytest.mark.parametrize("where", ["import", "factory", "forward"])
def test_code_that_ends_the_program_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ends: str, where: str
) -> None:
    name = f"ends_{where}_{abs(hash(ends))}"
    lines = {
        "import": f"raise {ends}",
        "factory": f"def make(): raise {ends}",
        "forward": "import torch\nclass make(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"        self.a = torch.nn.Conv2d(3, 8, 3)\n    def forward(self, x): raise {ends}",
    }
    (tmp_path / f"{name}.py").write_text(lines[where] + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["--model", f"{name}:make", *JOB, "--out", str(tmp_path / "out")]) in (1, 2, 4)
    out, err = capsys.readouterr()
    assert out == ""
    assert ends.partition("(")[0] in err
    assert "Unexpected" not in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "y" * 5000, "bad\udcff/out"])
def test_names_that_cannot_be_had(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    assert main(["--model", "resnet20_cifar", *JOB, "--out", str(tmp_path / name)]) in (1, 2)
    err = capsys.readouterr().err
    assert "Unexpected" not in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert main(["inspect", "--model", name]) == 2
    assert "Unexpected" not in capsys.readouterr().err


@pytest.mark.parametrize("redirected", [">&-", "2>&-", ">&- 2>&-", "> /dev/full", "2> /dev/full", "> /dev/full 2>&1"])
def test_streams_that_are_closed_or_full(tmp_path: Path, redirected: str) -> None:
    atomic_write_text(tmp_path / "report.json", json.dumps(Report("net").to_json()))
    command = f"{sys.executable} -m compressor report {tmp_path} {redirected}"
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    stdout_fails = redirected.startswith(">")
    assert found.returncode == (1 if stdout_fails else 0)
    assert "Traceback" not in found.stderr
    assert "Exception ignored" not in found.stderr
    if stdout_fails and "2>" not in redirected:
        assert found.stderr.count("\n") == 1
        assert "stdout" in found.stderr


def test_signs_that_a_terminal_obeys_are_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("\x1b[31mred\x9b2J", warnings=["\x1b]0;title\x07"])
    atomic_write_text(tmp_path / "report.json", json.dumps(report.to_json()))
    for form in ("text", "json"):
        assert main(["report", str(tmp_path), "--format", form]) == 0
        out = capsys.readouterr().out
        assert not set(out) & set("\x1b\x07\x9b")
        assert "1b[31mred" in out
