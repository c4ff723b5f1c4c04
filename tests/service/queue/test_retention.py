"""What goes with time."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from compressor.service.errors import NotFoundError
from compressor.service.queue.retention import Removed
from compressor.service.records import DONE
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
