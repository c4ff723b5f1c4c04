"""``deploy/backup.sh`` copies all that a server needs, and makes nothing where there is no server's data."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from compressor.service.services import Services
from tests.service.page.worked import Worked

SCRIPT = Path(__file__).parents[2] / "deploy" / "backup.sh"
pytestmark = pytest.mark.skipif(not (shutil.which("sh") and shutil.which("python3")), reason="needs sh and python3")


def back_up(data: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, data, target], capture_output=True, text=True, check=False)


def test_all_that_was_stored_is_in_the_copy(sqlite_services: Services, tmp_path: Path) -> None:
    worked = Worked(sqlite_services)
    job = worked.submit("kept")
    worked.leave(worked.claim(), model__onnx=b"onnx")
    data, target = sqlite_services.settings.data_dir, tmp_path / "backup"
    for _ in range(2):  # into the same folder again
        done = back_up(data, target)
        assert (done.returncode, done.stderr) == (0, "")
    with sqlite3.connect(target / "service.sqlite") as copy:
        assert copy.execute("SELECT id, name FROM jobs").fetchall() == [(job.id, "kept")]
    stored = [file for file in (data / "artefacts").rglob("*") if file.is_file()]
    assert any(file.read_bytes() == b"onnx" for file in stored)
    for file in stored:
        assert (target / file.relative_to(data)).read_bytes() == file.read_bytes()


def test_a_folder_without_a_database_is_refused_in_a_line(tmp_path: Path) -> None:
    done = back_up(tmp_path / "elsewhere", tmp_path / "backup")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "service.sqlite" in done.stderr
    assert not (tmp_path / "backup").exists()
