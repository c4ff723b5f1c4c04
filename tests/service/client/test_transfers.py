"""Uploads and downloads: whole and as they were, whatever breaks on the way."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path

import httpx
import pytest

from compressor.errors import CompressorError, UsageError
from compressor.service.client import uploads
from compressor.service.client.downloads import PARTS, RemoteFile, fetch, remote_files
from compressor.service.client.errors import ServerAwayError
from compressor.service.client.local import LocalFile
from compressor.service.client.uploads import send
from tests.service.client.fakes import FileServer, UploadServer, connection, problem

BODY = random.Random(0).randbytes(10_500)


def local(body: bytes = BODY, size: int | None = None) -> LocalFile:
    sha256 = hashlib.sha256(body).hexdigest()
    return LocalFile("weights", "weights", "w.safetensors", io.BytesIO(body), size or len(body), sha256)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 1000)


@pytest.mark.parametrize("seed", range(8))
def test_an_upload_arrives_whatever_breaks(seed: int) -> None:
    draw = random.Random(seed)
    numbers = draw.sample(range(2, 26), 8)
    server = UploadServer(breaks=set(numbers[:5]), loses=set(numbers[5:]))
    assert send(connection(server), local()) == "up1"
    assert server.received == BODY
    assert server.about["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert server.finished >= 1


def test_what_is_there_already_is_not_sent() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        return httpx.Response(201, json={"id": "up1", "offset": 0, "state": "done"})

    assert send(connection(answer), local()) == "up1"
    assert seen == ["POST"]


def test_a_file_that_shrinks_or_changes_is_told() -> None:
    with pytest.raises(CompressorError, match="has become shorter"):
        send(connection(UploadServer()), local(size=len(BODY) + 5))
    changed = local()
    server = UploadServer()
    with pytest.raises(CompressorError, match="its checksum differs"):
        send(
            connection(server),
            LocalFile(*(changed.key, "weights", "w", io.BytesIO(BODY[::-1])), len(BODY), changed.sha256),
        )


def test_a_refused_upload_ends_at_once() -> None:
    with pytest.raises(CompressorError, match="too large"):
        send(connection(lambda request: problem(413, "That is too large.")), local())


def test_a_service_that_stays_away_ends_an_upload() -> None:
    server = UploadServer(loses=set(range(4, 100)))
    with pytest.raises(ServerAwayError):
        send(connection(server), local())


FILES = {"report.json": b"{}", "exports/model.onnx": BODY, "empty.txt": b""}


def fetched(server: FileServer, out: Path, **more: bool) -> list[Path]:
    there = connection(server)
    return fetch(there, "j1", remote_files(there.document("GET", "/jobs/j1/files")), out, **more)


def test_files_come_as_they_are(tmp_path: Path) -> None:
    found = fetched(FileServer(FILES), tmp_path / "out")
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in found} == FILES
    assert not (tmp_path / "out" / PARTS).exists()


def test_a_download_goes_on_by_ranges(tmp_path: Path) -> None:
    server = FileServer({"m": BODY}, breaks=[3, 4, 0, None])
    fetched(server, tmp_path)
    assert (tmp_path / "m").read_bytes() == BODY
    assert server.ranges == [None, "bytes=3000-", "bytes=7000-", "bytes=7000-"]


def test_a_download_that_was_given_up_goes_on_later(tmp_path: Path) -> None:
    with pytest.raises(ServerAwayError):
        fetched(FileServer({"m": BODY}, breaks=[2, *[0] * 10]), tmp_path)
    assert not (tmp_path / "m").exists(), "nothing half written under its name"
    server = FileServer({"m": BODY})
    fetched(server, tmp_path)
    assert server.ranges == ["bytes=2000-"]
    assert (tmp_path / "m").read_bytes() == BODY
    again = FileServer({"m": BODY})
    fetched(again, tmp_path)
    assert again.ranges == [], "what is there is not fetched again"


def test_damage_on_the_way_is_found(tmp_path: Path) -> None:
    server = FileServer({"m": BODY})
    there = connection(server)
    wrong = RemoteFile("m", hashlib.sha256(b"other").hexdigest(), len(BODY))
    with pytest.raises(CompressorError, match="its checksum differs"):
        fetch(there, "j1", [wrong], tmp_path)
    with pytest.raises(CompressorError, match="larger than the service says"):
        fetch(there, "j1", [RemoteFile("m", hashlib.sha256(BODY).hexdigest(), 100)], tmp_path)
    assert not (tmp_path / "m").exists()
    (tmp_path / PARTS / hashlib.sha256(BODY).hexdigest()).write_bytes(b"x" * 4000)
    fetched(server, tmp_path)
    assert (tmp_path / "m").read_bytes() == BODY, "a part that was damaged here is fetched anew"


def test_other_content_is_not_overwritten_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("mine")
    with pytest.raises(UsageError, match="is there with other content"):
        fetched(FileServer({"a": b"1", "m": BODY}), tmp_path)
    assert (tmp_path / "m").read_text() == "mine"
    assert not (tmp_path / "a").exists(), "looked at before anything is fetched"
    fetched(FileServer({"m": BODY}), tmp_path, force=True)
    assert (tmp_path / "m").read_bytes() == BODY


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a\\..\\x",
        "C:/x",
        "a//b",
        "",
        ".",
        "..",
        "a/./b",
        "a\0b",
        "a\nb",
        "a/ ",
        "x\x1b[2J",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(CompressorError, match="under a name that is not taken"):
        remote_files({"files": [{"path": name, "sha256": "0" * 64, "bytes": 1}]})


def test_links_in_the_folder_lead_nowhere_else(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (out / "exports").symlink_to(other)
    with pytest.raises(UsageError, match="leads out of"):
        fetched(FileServer({"exports/m": BODY}), out)
    (out / "m").symlink_to(other / "m")
    with pytest.raises(UsageError, match="is no file"):
        fetched(FileServer({"m": BODY}), out)
    assert list(other.iterdir()) == []
