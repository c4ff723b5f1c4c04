"""Snapshots of a folder: all of it, only what changed travels, what is being written waits."""

from __future__ import annotations

import hashlib
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from compressor.service.records import FileRecord
from compressor.service.worker.errors import LimitError, RequestRefusedError
from compressor.service.worker.folder import Snapshots, restored, safe_place
from compressor.service.worker.limits import Limits


class Store:
    """Takes contents, and lists of files."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.files: list[FileRecord] = []
        self.put_count = 0
        self.lost: set[str] = set()

    def put(self, sha256: str, place: Path, size: int) -> None:
        data = place.read_bytes()[:size]
        assert hashlib.sha256(data).hexdigest() == sha256
        assert len(data) == size
        self.contents[sha256] = data
        self.put_count += 1

    def commit(self, files: list[FileRecord]) -> list[str]:
        for each in self.lost:
            self.contents.pop(each, None)
        self.lost = set()
        missing = sorted({each.sha256 for each in files} - set(self.contents))
        if not missing:
            self.files = files
        return missing

    def fetch(self, sha256: str, place: Path, size: int) -> None:
        assert len(self.contents[sha256]) == size
        place.write_bytes(self.contents[sha256])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "result"
    (made / ".job" / "stages").mkdir(parents=True)
    (made / ".job" / "stages" / "search.json").write_text("{}")
    (made / ".job" / "lock").write_text("17")
    (made / "model.safetensors").write_bytes(os.urandom(3 << 20))
    (made / ".report.17-ab.tmp").mkdir()
    (made / ".report.17-ab.tmp" / "report.json").write_text("half")
    (made / "events.jsonl").write_text("{}\n")
    return made


def test_what_is_stored_comes_back_and_only_changes_travel(folder: Path, tmp_path: Path) -> None:
    store, snapshots = Store(), Snapshots(folder, tmp_path / "staging", Limits())
    assert snapshots.take(nullcontext(), store.put, store.commit, log="said\n")
    names = [".job/stages/search.json", "events.jsonl", "model.safetensors", "worker.log"]
    assert [each.path for each in store.files] == names
    assert store.put_count == 4
    assert not snapshots.take(nullcontext(), store.put, store.commit, log="said\n")
    with (folder / "events.jsonl").open("a") as file:
        file.write("{}\n")
    assert snapshots.take(nullcontext(), store.put, store.commit, log="said\n")
    assert store.put_count == 5
    restored(store.files, tmp_path / "again", store.fetch)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "events.jsonl").read_text() == "{}\n{}\n"
    assert not (tmp_path / "staging").exists()


def test_a_file_that_grows_while_it_is_sent_is_stored_as_it_was(folder: Path, tmp_path: Path) -> None:
    """Also a large one, which is linked."""
    before = (folder / "model.safetensors").read_bytes()

    class Meanwhile:
        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None:
            with (folder / "model.safetensors").open("ab") as file:
                file.write(b"more")

    store = Store()
    Snapshots(folder, tmp_path / "staging", Limits()).take(Meanwhile(), store.put, store.commit)
    assert before in store.contents.values()


def test_what_the_store_lost_is_put_again(folder: Path, tmp_path: Path) -> None:
    store, snapshots = Store(), Snapshots(folder, tmp_path / "staging", Limits())
    snapshots.take(nullcontext(), store.put, store.commit)
    (folder / "new").write_text("new")
    store.lost = {next(each.sha256 for each in store.files if each.path == "model.safetensors")}
    count = store.put_count
    assert snapshots.take(nullcontext(), store.put, store.commit)
    assert store.put_count == count + 2
    assert "new" in [each.path for each in store.files]


def test_too_many_files_are_a_limit(folder: Path, tmp_path: Path) -> None:
    store = Store()
    with pytest.raises(LimitError, match="limit of 2"):
        Snapshots(folder, tmp_path / "staging", Limits(folder_files=2)).take(nullcontext(), store.put, store.commit)
    assert store.files == []


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a\\..\\x", "a\0b", "a/" * 600 + "b"])
def test_no_path_leads_out(path: str, tmp_path: Path) -> None:
    with pytest.raises(RequestRefusedError, match="no path inside"):
        safe_place(tmp_path, path)


def test_same_contents_under_two_names_travel_once(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text("same")
    store = Store()
    Snapshots(folder, tmp_path / "staging", Limits()).take(nullcontext(), store.put, store.commit)
    assert (store.put_count, [each.path for each in store.files]) == (1, ["a", "b"])
