"""All processes of a job are found, weighed, held still and killed, those that left their group among them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compressor.service.worker.processes import MARK, Group

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
COUNT = """
import os, subprocess, sys, time
held = bytearray(64 << 20)
held[::4096] = b"x" * len(held[::4096])
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "again"], start_new_session=True)
place = "counts" if len(sys.argv) == 1 else "again"
number = 0
while True:
    number += 1
    with open(place + ".tmp", "w") as file:
        file.write(str(number))
    os.replace(place + ".tmp", place)
    time.sleep(0.001)
"""


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """Two processes that count in files, the second in a session of its own."""
    (tmp_path / "count.py").write_text(COUNT)
    mark = f"{os.getpid()}-{tmp_path.name}"
    process = subprocess.Popen(
        [sys.executable, "count.py"], cwd=tmp_path, env={**os.environ, MARK: mark}, start_new_session=True
    )
    found = Group(process.pid, mark)
    while not (tmp_path / "counts").exists() or not (tmp_path / "again").exists():
        time.sleep(0.01)
    yield found
    found.kill()
    process.wait()


def counts(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("counts", "again")]


def test_they_are_found_and_weighed(group: Group) -> None:
    there = group.processes()
    assert len(there) == 2
    assert group.leader in there
    used = group.memory(there, above=1 << 40)
    assert (128 << 20) <= used < (512 << 20)
    assert (128 << 20) <= group.memory(there, above=0) <= used * 1.1


def test_they_stand_still_and_go_on(group: Group, tmp_path: Path) -> None:
    stopped = group.stop()
    assert sorted(stopped) == sorted(group.processes())
    before = counts(tmp_path)
    time.sleep(0.1)
    assert counts(tmp_path) == before
    group.go_on(stopped)
    end = time.monotonic() + 30
    while counts(tmp_path)[0] == before[0] or counts(tmp_path)[1] == before[1]:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_they_are_killed_also_while_they_stand_still(group: Group) -> None:
    group.stop()
    group.kill()
    end = time.monotonic() + 30
    while set(group.processes()) - {group.leader}:  # the leader is waited for by who started it
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_group_that_is_gone_is_empty() -> None:
    gone = Group(2**30, "nobody")
    assert gone.processes() == []
    assert gone.stop() == []
    gone.kill()
