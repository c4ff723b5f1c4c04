"""Uploads: resumable, limited, and checked by what they hold."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from typing import Any

import numpy as np
import pytest

from compressor.service.artefacts import uploads as module
from compressor.service.errors import (
    ConflictError,
    NotFoundError,
    OffsetError,
    QuotaError,
    RefusedError,
    StorageFullError,
    TooLargeError,
)
from compressor.service.records import DONE, UploadRecord
from compressor.service.services import Services
from tests.service.conftest import ServicesMaker
from tests.service.queue.submitting import claim, submit


def weights(count: int = 1000) -> bytes:
    from safetensors.numpy import save

    return bytes(save({"layer.weight": np.arange(count, dtype=np.float32)}))


def send(services: Services, data: bytes, kind: str = "weights", **values: Any) -> UploadRecord:
    """A finished upload."""
    upload = services.uploads.begin("default", "file", kind, len(data), **values)
    services.uploads.append(upload.id, 0, io.BytesIO(data))
    return services.uploads.finish(upload.id)


def test_an_upload_comes_in_chunks(services: Services) -> None:
    data = weights()
    sha256 = hashlib.sha256(data).hexdigest()
    upload = services.uploads.begin("default", "w.safetensors", "weights", len(data), sha256, "anna")
    assert (upload.state, upload.received, upload.submitted_by) == ("open", 0, "anna")
    with pytest.raises(ConflictError, match="send the rest"):
        services.uploads.finish(upload.id)
    for start in range(0, len(data), 1000):
        got = services.uploads.append(upload.id, start, io.BytesIO(data[start : start + 1000]))
        assert got.received == min(start + 1000, len(data))
    with pytest.raises(OffsetError) as told:
        services.uploads.append(upload.id, 1000, io.BytesIO(b"again"))
    assert told.value.offset == len(data)
    done = services.uploads.finish(upload.id)
    assert (done.state, done.sha256) == ("done", sha256)
    assert services.uploads.finish(upload.id) == done
    with services.blobs.open(sha256) as stream:
        assert stream.read() == data
    assert list(services.settings.uploads_dir.iterdir()) == []
    with pytest.raises(ConflictError, match="is done"):
        services.uploads.append(upload.id, len(data), io.BytesIO(b"more"))
    job = submit(services, uploads=(upload.id,))
    assert claim(services).uploads == (done,)
    with pytest.raises(ConflictError, match="needs the upload"):
        services.uploads.delete(upload.id)
    services.jobs.cancel(job.id)


def test_what_breaks_off_is_gone_on_with(sqlite_services: Services) -> None:
    services, data = sqlite_services, weights()

    class Breaking(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            if self.closed:
                return b""
            self.close()
            return data[:1234]

    class Lost(Breaking):
        def read(self, size: int = -1) -> bytes:
            if self.closed:
                raise ConnectionResetError("gone")
            return super().read(size)

    upload = services.uploads.begin("default", "w", "weights", len(data))
    with pytest.raises(ConnectionResetError):
        services.uploads.append(upload.id, 0, Lost())  # type: ignore[arg-type]
    assert services.uploads.get(upload.id).received == 1234
    # The server died after it wrote, and before it said so to the database.
    part = services.settings.uploads_dir / f"{upload.id}.part"
    with part.open("ab") as file:
        file.write(b"never announced")
    services.uploads.append(upload.id, 1234, io.BytesIO(data[1234:2000]))
    # The disk lost something.
    os.truncate(part, 1500)
    with pytest.raises(OffsetError) as told:
        services.uploads.append(upload.id, 2000, io.BytesIO(data[2000:]))
    assert told.value.offset == 1500
    services.uploads.append(upload.id, 1500, io.BytesIO(data[1500:]))
    assert services.uploads.finish(upload.id).sha256 == hashlib.sha256(data).hexdigest()


def test_limits_hold(make_services: ServicesMaker, sqlite_url: str) -> None:
    services = make_services(sqlite_url, upload_bytes=10_000, storage_bytes=12_000)
    with pytest.raises(TooLargeError):
        services.uploads.begin("default", "w", "weights", 10_001)
    upload = services.uploads.begin("default", "w", "weights", 100)
    services.uploads.append(upload.id, 0, io.BytesIO(b"x" * 60))
    with pytest.raises(TooLargeError, match="announced"):
        services.uploads.append(upload.id, 60, io.BytesIO(b"x" * 41))
    assert services.uploads.get(upload.id).received == 60
    services.uploads.begin("default", "w", "weights", 10_000)
    with pytest.raises(QuotaError, match="do not fit"):
        services.uploads.begin("default", "w", "weights", 3000)
    services.uploads.begin("other", "w", "weights", 3000)
    assert services.uploads.stored_bytes("default") == 10_100
    services.uploads.delete(upload.id)
    upload = services.uploads.begin("default", "w", "weights", 2000)
    with pytest.raises(QuotaError):
        submit(services)
    with pytest.raises(NotFoundError):
        services.uploads.get(upload.id, "other")
    for wrong in ({"name": ""}, {"kind": "pickle"}, {"size": 0}, {"sha256": "X" * 64}, {"name": "a\0"}):
        with pytest.raises(RefusedError):
            services.uploads.begin(**{"project": "third", "name": "w", "kind": "weights", "size": 1, **wrong})


def test_a_full_disk_keeps_what_was_there(sqlite_services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    services, data = sqlite_services, weights()
    upload = services.uploads.begin("default", "w", "weights", len(data))
    services.uploads.append(upload.id, 0, io.BytesIO(data[:100]))

    def full(file: Any, _: bytes) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_all", full)
        with pytest.raises(StorageFullError):
            services.uploads.append(upload.id, 100, io.BytesIO(data[100:]))
    assert services.uploads.get(upload.id).received == 100
    services.uploads.append(upload.id, 100, io.BytesIO(data[100:]))
    assert services.uploads.finish(upload.id).state == DONE


def test_only_one_request_sends_at_a_time(sqlite_services: Services) -> None:
    services, data = sqlite_services, weights()
    upload = services.uploads.begin("default", "w", "weights", len(data))
    began, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            began.set()
            go_on.wait(10)
            return super().read(size)

    first = threading.Thread(target=services.uploads.append, args=(upload.id, 0, Slow(data)))
    first.start()
    began.wait(10)
    with pytest.raises(ConflictError, match="Another request"):
        services.uploads.append(upload.id, 0, io.BytesIO(data))
    go_on.set()
    first.join()
    assert services.uploads.finish(upload.id).received == len(data)


def test_a_wrong_checksum_is_refused(sqlite_services: Services) -> None:
    services = sqlite_services
    with pytest.raises(RefusedError, match="damaged on its way"):
        send(services, weights(), sha256="0" * 64)
    (upload,) = services.uploads.list()
    assert (upload.state, upload.received) == ("refused", 0)
    assert list(services.settings.uploads_dir.iterdir()) == []
    with pytest.raises(ConflictError, match="refused"):
        services.uploads.finish(upload.id)
    with pytest.raises(ConflictError):
        submit(services, uploads=(upload.id,))
