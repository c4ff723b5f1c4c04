"""What ``docs/extending.md`` shows is one distribution: installed as it stands, it passes its own tests and works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "extending.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    text = PAGE.read_text(encoding="utf-8")
    (folder / "toys").mkdir()
    (folder / "toys" / "__init__.py").write_text("")
    blocks = re.findall(r"```python\n# (toys/\w+\.py)\n(.*?)```", text, flags=re.DOTALL)
    for name, code in blocks:
        (folder / name).write_text(code)
    assert len(blocks) == text.count("```python")
    info = folder / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (lines,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    points = re.sub(r"project\.entry-points\.\"([\w.]+)\"", r"\1", lines).replace('"', "")
    (info / "entry_points.txt").write_text(points)
    return folder


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments], cwd=site, env=environment, capture_output=True, text=True, timeout=300
    )


def test_every_plug_in_passes_its_contract(site: Path) -> None:
    done = run(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "toys/test_toys.py")
    assert done.returncode == 0, done.stdout[-3000:]


def test_all_of_them_work_from_the_command_line(site: Path, tmp_path: Path) -> None:
    job = ["-m", "compressor", "--model", "resnet20_cifar", "--weights", "none", "--search", "coins"]
    job += ["--coins.patience", "4", "--budget", "coins=70%", "--export", "state", "--bench-seconds", "0"]
    done = run(site, *job, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert "--coins.patience" in run(site, "-m", "compressor", "--help").stdout
    assert "patient" in run(site, "-m", "compressor", "targets").stdout


def test_each_is_under_forty_lines() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, code in re.findall(r"```python\n# (toys/\w+\.py)\n(.*?)```", text, flags=re.DOTALL):
        assert name == "toys/test_toys.py" or len(code.splitlines()) < 40, name
