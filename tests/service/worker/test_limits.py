"""Amounts as they are written, limits of the kernel, and what is told of a limit that was met."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.errors import CompressorError, UsageError
from compressor.service.worker.child import explained
from compressor.service.worker.config import WorkerConfig, datasets_of, hidden_places
from compressor.service.worker.limits import Limits, Watch, measured, read_bytes, require_usable, shown_bytes
from compressor.service.worker.processes import Group


@pytest.mark.parametrize(
    ("text", "count"),
    [("8GiB", 8 << 30), ("500MB", 500 << 20), ("2g", 2 << 30), ("1.5 GiB", 3 << 29), ("1024", 1024), ("7 B", 7)],
)
def test_amounts(text: str, count: int) -> None:
    assert read_bytes(text, "--memory") == count


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "GiB", "nan", "1e999GiB", "8XiB"])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--memory takes an amount such as 8GiB"):
        read_bytes(text, "--memory")


def test_amounts_are_shown_as_they_are_written() -> None:
    assert [shown_bytes(count) for count in (0, 1023, 1536, 8 << 30)] == ["0 B", "1023 B", "1.5 KiB", "8 GiB"]


def test_limits_that_no_job_can_live_with() -> None:
    with pytest.raises(UsageError, match="256 MiB is the least"):
        require_usable(Limits(memory_bytes=1 << 20))
    with pytest.raises(UsageError, match="--hours"):
        require_usable(Limits(seconds=0))
    require_usable(Limits())
    assert Limits.from_json(json.loads(json.dumps(Limits(open_files=7).to_json()))) == Limits(open_files=7)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_the_kernel_watches_over_files(tmp_path: Path) -> None:
    code = """
from compressor.service.worker.limits import Limits, restrict
restrict(Limits(file_bytes=1000, open_files=30))
try:
    with open("large", "wb") as file:
        file.write(b"x" * 5000)
except OSError as error:
    print(error.errno)
try:
    files = [open("large") for _ in range(40)]
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(errno.EMFILE)]


def test_what_a_limit_did_is_told_as_that() -> None:
    limits = Limits(file_bytes=1 << 20, open_files=40, memory_bytes=1 << 30)
    error = CompressorError("Cannot write model.safetensors.")
    error.__cause__ = OSError(errno.EFBIG, "File too large")
    assert explained(error, limits) == (1, "A file of the job grew beyond the limit of 1 MiB for one file.")
    assert "limit of 40" in explained(OSError(errno.EMFILE, "Too many open files"), limits)[1]
    assert "limit for a job is 1 GiB" in explained(MemoryError(), limits)[1]
    assert (
        "limit for a job is 1 GiB" in explained(RuntimeError("DefaultCPUAllocator: can't allocate memory"), limits)[1]
    )
    assert explained(UsageError("no such thing"), limits) == (2, "no such thing")


def test_time_and_folder_are_watched(tmp_path: Path) -> None:
    now = [0.0]
    (tmp_path / "given").touch()
    group = Group(leader=2**30, mark="nobody")
    watch = Watch(Limits(seconds=100, folder_files=2), group, tmp_path, clock=lambda: now[0])
    assert watch.exceeded() is None
    for name in "abc":
        (tmp_path / name).touch()
    assert watch.exceeded() is None  # a folder is looked at every few seconds
    now[0] = 50
    assert "3 files, more than the limit of 2" in (watch.exceeded() or "")
    now[0] = 101
    assert "time limit of 100 s" in (watch.exceeded() or "")


def test_a_folder_is_measured_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * 10_000)
    (tmp_path / "up").symlink_to("/usr")
    files, size = measured(tmp_path)
    assert files == 3
    assert 0 < size <= 20_000


def test_what_a_worker_is_told_is_checked(tmp_path: Path) -> None:
    for told in ({"name": "../x"}, {"name": ""}, {"labels": ("a b",)}, {"server": "ftp://x"}, {"server": "localhost"}):
        with pytest.raises(UsageError):
            WorkerConfig(**{"server": "http://x", "scratch": tmp_path, **told})  # type: ignore[arg-type]
    config = WorkerConfig("http://x", key="secret", labels=("gpu", "code"), scratch=tmp_path)
    assert "secret" not in repr(config)
    assert config.all_labels == ("gpu",)  # not by a label alone
    assert WorkerConfig("http://x", labels=("gpu",), code="sandboxed").all_labels == ("gpu", "code")


def test_data_sets_are_read_as_the_server_reads_them() -> None:
    assert datasets_of("a=cifar10:/data/a, b=npz:/data/b.npz") == {"a": "cifar10:/data/a", "b": "npz:/data/b.npz"}
    assert datasets_of('{"a": "cifar10:/data/a"}') == {"a": "cifar10:/data/a"}
    assert datasets_of(None) == datasets_of("  ") == {}
    for text in ("a", '{"a": 1}', "{"):
        with pytest.raises(UsageError, match="COMPRESSOR_DATASETS"):
            datasets_of(text)


def test_places_of_a_server_on_this_machine_are_hidden() -> None:
    said = {"COMPRESSOR_DATA_DIR": "/srv/data", "COMPRESSOR_DATABASE_URL": "sqlite:////srv/rows.sqlite"}
    assert {Path("/srv/data"), Path("/srv/rows.sqlite")} <= set(hidden_places(said))
    assert len(hidden_places({"COMPRESSOR_DATABASE_URL": "postgresql://x/y"})) == 1
