"""What goes with time."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from compressor.service.errors import NotFoundError
from compressor.service.queue.retention import Removed
from compressor.service.records import DONE, FileRecord
from compressor.service.services import Services
from tests.service.artefacts.test_uploads import send, weights
from tests.service.clocks import FakeClock
from tests.service.conftest import ServicesMaker
from tests.service.queue.submitting import claim, submit


def test_time_takes_what_nobody_needs(make_services: ServicesMaker, sqlite_url: str, clock: FakeClock) -> None:
    services = make_services(sqlite_url, keep_days=30)
    needed, not_needed = send(services, weights(10)), send(services, weights(20))
    submit(services, uploads=(needed.id,))
    old = submit(services, priority=1)
    lease = claim(services)
    services.leases.end(old.id, lease.token, DONE)
    abandoned = services.uploads.begin("default", "w", "weights", 100)
    services.uploads.append(abandoned.id, 0, io.BytesIO(b"x"))
    for part in services.settings.uploads_dir.iterdir():
        os.utime(part, (clock.now().timestamp(),) * 2)
    assert services.retention.sweep() == Removed()
    clock.advance(29 * 86400)
    assert services.retention.sweep() == Removed(uploads=1, workers=1)
    assert list(services.settings.uploads_dir.iterdir()) == []
    clock.advance(2 * 86400)
    assert services.retention.sweep() == Removed(jobs=1, uploads=1, blobs=1)
    assert not services.store.has(str(not_needed.sha256))
    assert services.store.has(str(needed.sha256))
    with pytest.raises(NotFoundError):
        services.jobs.get(old.id)


def test_a_part_without_an_upload_goes(sqlite_services: Services, clock: FakeClock) -> None:
    part: Path = sqlite_services.settings.uploads_dir / "stray.part"
    part.write_bytes(b"x")
    os.utime(part, (0, 0))
    sqlite_services.retention.sweep()
    assert not part.exists()


def test_a_clock_that_jumps_ahead_deletes_nothing(
    make_services: ServicesMaker, sqlite_url: str, clock: FakeClock
) -> None:
    services = make_services(sqlite_url, keep_days=30)
    job = submit(services)
    lease = claim(services)
    services.leases.end(job.id, lease.token, DONE)
    clock.jump(365 * 86400)
    assert services.retention.sweep() == Removed()
    clock.jump(-365 * 86400)
    assert services.retention.sweep() == Removed()
    assert services.retention.sweep() == Removed()
    clock.jump(365 * 86400)
    services.retention.sweep()
    clock.advance(3600)
    assert services.retention.sweep().jobs == 1, "it stays so, and may be right"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_is_not_over_keeps_what_it_has_however_long_it_takes(
    make_services: ServicesMaker, sqlite_url: str, clock: FakeClock, state: str
) -> None:
    services = make_services(sqlite_url, keep_days=30)
    upload = send(services, weights(10))
    job = submit(services, uploads=(upload.id,))
    lease = claim(services)
    files = [FileRecord(path, *services.blobs.put(io.BytesIO(path.encode()))) for path in ("model.onnx", ".job/stage")]
    services.files.snapshot(job.id, lease.token, files)
    if state == "queued":
        services.leases.release(job.id, lease.token)
    for _ in range(12):
        clock.advance(10 * 86400)
        services.retention.sweep()
    assert services.jobs.get(job.id).state == state
    assert services.store.has(str(upload.sha256))
    assert [services.store.has(file.sha256) for file in files] == [True, True]
    assert [file.path for file in services.files.list(job.id)] == [".job/stage", "model.onnx"]


def test_what_a_job_was_started_from_stays_as_long_as_the_job_may_need_it(
    make_services: ServicesMaker, sqlite_url: str, clock: FakeClock
) -> None:
    """A pick of a sweep's front, and a job that starts from another's network."""
    services = make_services(sqlite_url, keep_days=30)
    sweep = submit(services)
    lease = claim(services)
    file = FileRecord("front.json", *services.blobs.put(io.BytesIO(b"{}")))
    services.files.snapshot(sweep.id, lease.token, [file])
    services.leases.end(sweep.id, lease.token, DONE)
    pick = submit(services, parent=sweep.id)
    clock.advance(60 * 86400)
    services.retention.sweep()
    assert services.store.has(file.sha256)
    assert [each.path for each in claim(services).parent_files] == ["front.json"]
    assert services.jobs.get(pick.id).state == "running"
