"""Contents by their SHA-256, on every kind of file system."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from compressor.errors import MissingDependencyError, UsageError
from compressor.service.artefacts.store import FsspecStore, open_store
from compressor.service.errors import NotFoundError, RefusedError, StorageError, StorageFullError, TooLargeError


@pytest.fixture(params=["folder", "memory", "url", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FsspecStore:
    urls = {
        "folder": str(tmp_path / "store"),
        "memory": f"memory://{tmp_path.name}/store",
        "url": f"file://{tmp_path}/store",
    }
    if request.param == "s3":
        return FsspecStore(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    return FsspecStore(urls[request.param])


def _all(store: FsspecStore) -> list[str]:
    return [path for path in store._fs.find(store._root) if not path.endswith("store.txt")]


class _Breaking(io.RawIOBase):
    """A stream that breaks off."""

    def __init__(self, data: bytes) -> None:
        self._parts = [data]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._parts:
            return self._parts.pop()
        raise ConnectionResetError("gone")


def test_what_is_put_is_there_whole(store: FsspecStore) -> None:
    data = os.urandom(3 << 20)
    sha256 = hashlib.sha256(data).hexdigest()
    assert not store.has(sha256)
    assert store.put(io.BytesIO(data)) == (sha256, len(data))
    assert store.put(io.BytesIO(data), sha256, len(data)) == (sha256, len(data))
    assert store.has(sha256)
    for start in (0, 1, 1 << 20, len(data)):
        with store.open(sha256, start) as stream:
            assert stream.read() == data[start:]
    with store.open(sha256, 5) as stream:
        assert stream.read(7) == data[5:12]
    assert len(_all(store)) == 1
    store.delete(sha256)
    store.delete(sha256)
    assert not store.has(sha256)
    with pytest.raises(NotFoundError):
        store.open(sha256)
    store.check()


def test_what_is_wrong_leaves_nothing(store: FsspecStore) -> None:
    with pytest.raises(RefusedError, match="damaged"):
        store.put(io.BytesIO(b"abc"), "0" * 64)
    with pytest.raises(TooLargeError):
        store.put(io.BytesIO(b"abc"), limit=2)
    with pytest.raises(ConnectionResetError):
        store.put(_Breaking(b"abc"))  # type: ignore[arg-type]
    assert _all(store) == []


@pytest.mark.parametrize("sha256", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 62 + "/0"])
def test_only_hashes_name_contents(store: FsspecStore, sha256: str) -> None:
    with pytest.raises(NotFoundError):
        store.open(sha256)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["write", "flush", "mv"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, step: str) -> None:
    store = FsspecStore(str(tmp_path / "store"))
    kept, _ = store.put(io.BytesIO(b"kept"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    if step == "mv":
        monkeypatch.setattr(store._fs, "mv", full)
    elif step == "flush":
        monkeypatch.setattr(os, "fsync", full)
    else:
        opened = store._fs.open

        def opening(*arguments: Any, **options: Any) -> BinaryIO:
            file = opened(*arguments, **options)
            monkeypatch.setattr(file, "write", full, raising=False)
            return file

        monkeypatch.setattr(store._fs, "open", opening)
    with pytest.raises(StorageFullError, match="take no more") as told:
        store.put(io.BytesIO(b"lost"))
    assert told.value.status == 507
    monkeypatch.undo()
    assert [path.endswith(kept[2:]) for path in _all(store)] == [True]


def test_a_store_that_vanishes_is_told(tmp_path: Path) -> None:
    store = FsspecStore(str(tmp_path / "store"))
    (tmp_path / "store").rename(tmp_path / "aside")
    with pytest.raises(StorageError, match="gone"):
        store.check()
    (tmp_path / "aside").rename(tmp_path / "store")
    store.check()


def test_what_killed_writers_left_goes(store: FsspecStore) -> None:
    for name in ("1-dead", f"{2**40:x}-living", "other"):
        store._make_folder(f"{store._root}/tmp/{name}")
        with store._fs.open(f"{store._root}/tmp/{name}", "wb") as file:
            file.write(b"half")
    assert store.remove_temporaries(3600) == 1
    assert sorted(path.rpartition("/")[2] for path in _all(store)) == [f"{2**40:x}-living", "other"]


def test_many_put_the_same_at_once(store: FsspecStore) -> None:
    data, failures = os.urandom(1 << 16), []

    def put() -> None:
        try:
            store.put(io.BytesIO(data))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with store.open(hashlib.sha256(data).hexdigest()) as stream:
        assert stream.read() == data
    assert len(_all(store)) == 1


def test_places_that_cannot_be_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="name a folder"):
        open_store("nonsense://x")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageError):
        open_store(str(file / "below"))
    import fsspec.core

    def lacking(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(MissingDependencyError, match=r"compressor\[s3\]"):
        open_store("s3://bucket/x")


def test_a_bucket_that_is_none_or_away_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="s3://none-of-that-name/x: The specified bucket does not exist"):
        FsspecStore("s3://none-of-that-name/x")
    from fsspec.config import conf

    away = {"endpoint_url": "http://127.0.0.1:1", "config_kwargs": {"retries": {"max_attempts": 0}}}
    monkeypatch.setitem(conf, "s3", away)
    with pytest.raises(StorageError, match="Cannot write artefacts") as told:
        FsspecStore(f"{bucket}/x")
    assert told.value.status == 503
