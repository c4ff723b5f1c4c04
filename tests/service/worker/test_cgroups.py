"""The memory of a job is held by the kernel where control groups can be made, and the job's error says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.service.worker import cgroups, loop
from compressor.service.worker.cgroups import MemoryGroup, MemoryGroups, NoGroupsError, find_groups
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.loop import Worker
from tests.service.worker.fake_server import FakeServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are of Linux")
Config = Callable[..., WorkerConfig]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as the kernel shows them: a unit that was handed over, with this process in it. Folders hold no files
    when they are made, so that removing them works as it does there."""
    unit = tmp_path / "tree" / "system.slice" / "worker.service"
    for place in (unit, *list(unit.parents)[:2]):
        place.mkdir(parents=True, exist_ok=True)
        (place / "cgroup.procs").write_text("")
        (place / "cgroup.subtree_control").write_text("")
    (tmp_path / "tree" / "cgroup.controllers").write_text("cpu memory pids")
    monkeypatch.setattr(cgroups, "_is_ours", lambda place, root: place.name == "worker.service")
    monkeypatch.setattr(Path, "rmdir", _rmdir)
    return unit


def _rmdir(path: Path) -> None:
    """As of the kernel's folders: what it shows in one is no hindrance."""
    for each in list(path.iterdir()):
        os.remove(each)
    os.rmdir(path)


def found(tree: Path, own: str) -> MemoryGroups:
    (tree.parents[2] / "own").write_text(f"4:cpu:/x\n0::{own}\n")
    return find_groups(tree.parents[1], tree.parents[2] / "own")


def test_groups_are_made_beside_the_process_that_was_handed_one(tree: Path) -> None:
    groups = found(tree, "/system.slice/worker.service/supervisor")
    assert groups.place == tree
    assert (tree / "cgroup.subtree_control").read_text() == "+memory"
    made = groups.make(123 << 20)
    assert made is not None
    assert made.path.parent == tree
    said = {name: (made.path / name).read_text() for name in ("memory.max", "memory.swap.max", "memory.oom.group")}
    assert said == {"memory.max": str(123 << 20), "memory.swap.max": "0", "memory.oom.group": "1"}
    made.close()
    made.close()
    assert not list(tree.glob("compressor-job-*"))


def test_a_process_that_is_alone_steps_down_and_moves_nobody_else(tree: Path) -> None:
    (tree / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    with pytest.raises(NoGroupsError, match="other processes"):
        found(tree, "/system.slice/worker.service")
    (tree / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert found(tree, "/system.slice/worker.service").place == tree
    assert (tree / "compressor-supervisor" / "cgroup.procs").read_text() == str(os.getpid())


def test_where_there_are_none_it_is_said_why(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(NoGroupsError, match="not handed over"):
        found(tree, "/system.slice/other/supervisor")
    (tree.parents[1] / "cgroup.controllers").write_text("cpu pids")
    with pytest.raises(NoGroupsError, match="do not limit memory"):
        found(tree, "/system.slice/worker.service/supervisor")
    with pytest.raises(NoGroupsError, match="no tree"):
        find_groups(tmp_path / "nowhere")


@pytest.mark.parametrize(("top", "ours"), [(True, True), (False, False)])
def test_the_top_of_a_containers_tree_is_its_own(tmp_path: Path, top: bool, ours: bool) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    assert not cgroups._is_ours(tmp_path, tmp_path), "the top of a machine's tree has no type"
    (tmp_path / "cgroup.type").write_text("domain")
    assert cgroups._is_ours(tmp_path, tmp_path if top else tmp_path.parent) is ours


def test_groups_of_dead_workers_are_removed(tree: Path) -> None:
    gone, mine = tree / "compressor-job-999999999-ab", tree / f"compressor-job-{os.getpid()}-cd"
    gone.mkdir()
    mine.mkdir()
    MemoryGroups(tree).clean()
    assert (gone.exists(), mine.exists()) == (False, True)


def test_what_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    assert MemoryGroups(tmp_path / "nowhere").make(1 << 30) is None


def test_whether_the_kernel_ended_something_is_read(tmp_path: Path) -> None:
    group = MemoryGroup(tmp_path)
    assert not group.killed()
    for text, killed in (("low 0\noom 3\noom_kill 0\n", False), ("oom_kill 2\noom_group_kill 1\n", True)):
        (tmp_path / "memory.events").write_text(text)
        assert group.killed() is killed


@pytest.mark.parametrize("killed", [1, 0])
@pytest.mark.parametrize("sandbox", [None, False])
def test_a_job_that_the_kernel_ended_failed_for_its_memory(
    tree: Path,
    server: FakeServer,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    killed: int,
    sandbox: bool | None,
) -> None:
    """The kernel is a file here that says so; the job ends as it would end it."""
    joined = []

    class Told(MemoryGroup):
        def close(self) -> None:
            joined.append(int((self.path / "cgroup.procs").read_text()))
            super().close()

    def make(self: MemoryGroups, limit: int) -> MemoryGroup:
        path = tree / "job"
        path.mkdir()
        (path / "memory.events").write_text(f"oom_kill {killed}\n")
        return Told(path)

    monkeypatch.setattr(MemoryGroups, "make", make)
    monkeypatch.setattr(loop, "groups_here", lambda: MemoryGroups(tree))
    job = server.submit("one", {"steps": [["die", 9]]})
    more = {} if sandbox is None else {"sandbox": sandbox, "code": "unsandboxed"}
    Worker(config(**more, limits={"memory_bytes": 300 << 20}), jobs=1).run()
    assert job.state == "failed"
    assert job.error is not None
    assert ("more memory than the limit of 300 MiB" in job.error["text"]) is bool(killed)
    assert job.error["kind"] == ("LimitError" if killed else "ProcessDied")
    assert len(joined) == 1
    assert not (tree / "job").exists()


def test_the_kernel_catches_a_burst() -> None:
    try:
        groups = find_groups()
    except NoGroupsError as error:
        pytest.skip(f"no control groups can be made here: {error}")
    group = groups.make(256 << 20)
    assert group is not None
    eat = [sys.executable, "-c", "held = bytearray(1 << 30); held[::4096] = b'x' * len(held[::4096]); print('ate it')"]
    done = subprocess.run(group.command(eat), capture_output=True, text=True, timeout=60)
    assert "ate it" not in done.stdout
    assert group.killed()
    group.close()
    assert not group.path.exists()
