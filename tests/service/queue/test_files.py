"""The folder of a job, as its worker left it."""

from __future__ import annotations

import hashlib
import io
from datetime import timedelta

import pytest

from compressor.service.artefacts.blobs import Blobs
from compressor.service.errors import NotFoundError, RefusedError, StorageError
from compressor.service.records import DONE, FileRecord
from compressor.service.services import Services
from tests.service.clocks import FakeClock
from tests.service.queue.submitting import claim, silence, submit


def put(services: Services, path: str, data: bytes) -> FileRecord:
    sha256, size = services.blobs.put(io.BytesIO(data))
    return FileRecord(path, sha256, size)


def test_a_snapshot_is_the_whole_folder(services: Services) -> None:
    job = submit(services)
    lease = claim(services)
    a, b, c = put(services, "a.json", b"a"), put(services, "sub/b.bin", b"b" * 10), put(services, "c", b"")
    assert services.files.snapshot(job.id, lease.token, [b, a]) == []
    assert services.files.list(job.id) == [a, b]
    changed = put(services, "a.json", b"other")
    assert services.files.snapshot(job.id, lease.token, [changed, c]) == []
    assert services.files.list(job.id) == [changed, c]
    file, stream = services.files.open(job.id, "a.json", start=2)
    with stream:
        assert (file, stream.read()) == (changed, b"her")
    with pytest.raises(NotFoundError, match=r"b\.bin"):
        services.files.open(job.id, "sub/b.bin")


@pytest.mark.parametrize("state", ["done", "failed"])
def test_what_a_job_goes_on_from_is_kept_until_it_is_done(services: Services, state: str) -> None:
    """A worker may die after it stored all, and before it could tell: the next one finds the stages."""
    job = submit(services)
    lease = claim(services)
    paths = ("model.onnx", ".job/job.json", "point/.job/stages/search", "point/report.json", "a.b/c.json")
    files = [put(services, path, path.encode()) for path in paths]
    services.files.snapshot(job.id, lease.token, files)
    assert {file.path for file in services.files.list(job.id)} == set(paths)
    error = {"kind": "x", "text": "x", "exit_code": 2} if state == "failed" else None
    services.leases.end(job.id, lease.token, state, error)
    kept = {"model.onnx", "point/report.json", "a.b/c.json"} if state == "done" else set(paths)
    assert {file.path for file in services.files.list(job.id)} == kept


def test_a_snapshot_without_its_contents_changes_nothing(services: Services) -> None:
    job = submit(services)
    lease = claim(services)
    a = put(services, "a", b"a")
    services.files.snapshot(job.id, lease.token, [a])
    gone = hashlib.sha256(b"gone").hexdigest()
    assert services.files.snapshot(job.id, lease.token, [FileRecord("b", gone, 4)]) == [gone]
    assert services.files.list(job.id) == [a]


@pytest.mark.parametrize(
    "path",
    ["", "/a", "../a", "a/../b", "a//b", "./a", "a/.", "a\\b", "C:/a", "a\0b", "a\nb", "\ud800", "x" * 501, "a/"],
)
def test_paths_that_lead_out_of_the_folder_are_refused(sqlite_services: Services, path: str) -> None:
    services = sqlite_services
    job = submit(services)
    lease = claim(services)
    with pytest.raises(RefusedError, match="no name within"):
        services.files.snapshot(job.id, lease.token, [put(services, path, b"a")])
    assert services.files.list(job.id) == []


def test_paths_that_stand_for_two_things_are_refused(sqlite_services: Services) -> None:
    services = sqlite_services
    job = submit(services)
    lease = claim(services)
    for paths in (("a", "a"), ("a", "a/b"), ("a/b/c", "a/b")):
        with pytest.raises(RefusedError, match="twice"):
            services.files.snapshot(job.id, lease.token, [put(services, path, b"a") for path in paths])
    a = put(services, "a", b"a")
    with pytest.raises(RefusedError, match="bytes"):
        services.files.snapshot(job.id, lease.token, [FileRecord("a", a.sha256, 7)])
    with pytest.raises(RefusedError, match="SHA-256"):
        services.files.snapshot(job.id, lease.token, [FileRecord("a", "A" * 64, 7)])


def test_the_next_worker_gets_the_last_snapshot(services: Services, clock: FakeClock) -> None:
    job = submit(services)
    first = claim(services)
    files = [put(services, f"stage_{number}.json", bytes([number])) for number in range(3)]
    services.files.snapshot(job.id, first.token, files)
    silence(services, clock, 31)
    second = claim(services, "w2")
    assert second.files == tuple(files)
    services.leases.end(job.id, second.token, DONE)
    pick = submit(services, parent=job.id, kind="pick")
    assert claim(services).parent_files == tuple(files)
    assert services.jobs.get(pick.id).kind == "pick"


def test_garbage_goes_and_what_is_needed_stays(services: Services, clock: FakeClock) -> None:
    job = submit(services)
    lease = claim(services)
    kept, dropped, young = put(services, "k", b"kept"), put(services, "d", b"dropped"), put(services, "y", b"young")
    services.files.snapshot(job.id, lease.token, [kept, dropped])
    services.files.snapshot(job.id, lease.token, [kept])
    grace = timedelta(days=1).total_seconds()
    clock.advance(grace / 2)
    assert services.blobs.has(young.sha256)
    assert services.blobs.collect_garbage(grace) == 0
    clock.advance(grace / 2 + 1)
    assert services.blobs.collect_garbage(grace) == 1
    assert [services.blobs.has(file.sha256) for file in (kept, dropped, young)] == [True, False, True]
    assert services.files.snapshot(job.id, lease.token, [kept, dropped]) == [dropped.sha256]
    services.leases.end(job.id, lease.token, DONE)
    services.jobs.delete(job.id)
    clock.advance(2 * grace)
    assert services.blobs.collect_garbage(grace) == 2
    assert not services.store.has(kept.sha256)


def test_what_is_put_again_while_it_is_collected_stays(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector takes a content between the two steps of a put: into the store, and into the database."""
    file = put(services, "a", b"content")
    clock.advance(10**6)
    real = services.store.put

    def put_and_lose(*arguments: object) -> tuple[str, int]:
        done = real(*arguments)  # type: ignore[arg-type]
        monkeypatch.undo()
        assert services.blobs.collect_garbage() == 1
        return done

    monkeypatch.setattr(services.store, "put", put_and_lose)
    assert put(services, "a", b"content") == file
    assert services.blobs.has(file.sha256)
    with services.blobs.open(file.sha256) as stream:
        assert stream.read() == b"content"


def test_what_measurements_need_stays(sqlite_services: Services, clock: FakeClock) -> None:
    services = sqlite_services
    file = put(services, "network.onnx", b"network")
    blobs = Blobs(services.database, services.store, clock, in_use=lambda session: {file.sha256})
    clock.advance(10**6)
    assert blobs.collect_garbage() == 0
    assert services.blobs.collect_garbage() == 1


def test_a_content_that_cannot_be_deleted_is_tried_again(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(services, "a", b"content")
    clock.advance(10**6)

    def fail(sha256: str) -> None:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.store, "delete", fail)
        with pytest.raises(StorageError):
            services.blobs.collect_garbage()
    assert services.blobs.has(file.sha256)
    clock.advance(10**6)
    assert services.blobs.collect_garbage() == 1
    assert not services.store.has(file.sha256)
