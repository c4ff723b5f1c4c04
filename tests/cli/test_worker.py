"""``compress worker``: its options, its key, and what it says where it cannot work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compressor.cli import main
from compressor.cli.worker import worker_config
from compressor.errors import UsageError
from compressor.service.worker.config import WorkerConfig

OPTIONS = {
    "server": "http://127.0.0.1:1",
    "name": None,
    "labels": (),
    "allow_code": "no",
    "memory": "8GiB",
    "hours": 24.0,
    "scratch": None,
    "key_file": None,
    "no_warm": False,
    "local": False,
}


def configured(**more: object) -> WorkerConfig:
    return worker_config({**OPTIONS, **more})


def test_options_become_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSOR_DATASETS", "mine=cifar10:/data/cifar10")
    monkeypatch.setenv("COMPRESSOR_DATA_DIR", "/srv/service")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/code", "more"]))
    found = configured(
        name="gpu-1", labels=("gpu",), memory="2GiB", hours=0.5, scratch=tmp_path, allow_code="sandboxed"
    )
    assert (found.name, found.labels, found.all_labels) == ("gpu-1", ("gpu",), ("gpu", "code"))
    assert (found.limits.memory_bytes, found.limits.seconds) == (2 << 30, 1800)
    assert found.datasets == {"mine": "cifar10:/data/cifar10"}
    assert Path("/srv/service") in found.hidden
    assert found.python_path == ("/code", str(Path("more").absolute()))


def test_the_key_is_never_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPRESSOR_KEY", raising=False)
    assert configured().key is None
    monkeypatch.setenv("COMPRESSOR_KEY", "of-the-environment")
    assert configured().key == "of-the-environment"
    (tmp_path / "key").write_text("of-a-file\n")
    assert configured(key_file=tmp_path / "key").key == "of-a-file"
    for text in ("", "two words", "x" * 2000):
        (tmp_path / "key").write_text(text)
        with pytest.raises(UsageError, match="holds no key"):
            configured(key_file=tmp_path / "key")
    with pytest.raises(UsageError, match="cannot be read"):
        configured(key_file=tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--server", "localhost"], "http://HOST:PORT"),
        (["--server", "http://x", "--memory", "much"], "--memory takes an amount"),
        (["--server", "http://x", "--memory", "1MiB"], "256 MiB is the least"),
        (["--server", "http://x", "--hours", "0"], "--hours must be above 0"),
        (["--server", "http://x", "--name", "a/b"], "--name is 'a/b'"),
        (["--server", "http://x", "--label", "a b"], "--label is 'a b'"),
        (["--server", "http://x", "--allow-code=maybe"], "--allow-code takes nothing, or unsandboxed"),
        ([], "--server"),
    ],
)
def test_bad_options_are_one_line(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert text in said
    assert "\n" not in said


def test_a_scratch_folder_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert (
        main(["worker", "--server", "http://127.0.0.1:1", "--scratch", str(tmp_path / "file"), "-q", "--no-warm"]) == 2
    )
    assert "--scratch" in capsys.readouterr().err
