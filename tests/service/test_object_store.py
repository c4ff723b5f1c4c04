"""A whole job on artefacts that lie in no folder: in a bucket of a server that speaks S3, and in fsspec's memory.

Nothing of what a job reads and leaves may lie on the server's disk.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import fsspec
import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from compressor.service.client.downloads import PARTS
from compressor.service.errors import NotFoundError
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.loop import Worker
from tests.service.client.conftest import Server, serving
from tests.service.clocks import FakeClock
from tests.service.conftest import ServicesMaker

STAND_IN = Path(__file__).parent / "worker"


def worked(server: Server, folder: Path) -> None:
    """Let a worker do the next job: it writes some files instead of compressing."""
    told: dict[str, Any] = {"code": "unsandboxed", "sandbox": False, "python_path": (str(STAND_IN),), "warm": False}
    config = WorkerConfig(server=server.url, scratch=folder, work="stand_in:on_store", wait_seconds=0.5, **told)
    Worker(config, jobs=1).run()


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL for artefacts."""
    root = "memory:/" if request.param == "memory" else request.getfixturevalue("bucket")
    return f"{root}/{tmp_path.name}/artefacts"


def names(place: str) -> list[str]:
    """Contents in the bucket."""
    files, root = fsspec.url_to_fs(place)
    files.invalidate_cache()
    found = files.find(root)
    return sorted("".join(path.rsplit("/", 2)[1:]) for path in found if not path.endswith("store.txt"))


def test_a_job_lives_and_goes_in_a_bucket(
    make_services: ServicesMaker, sqlite_url: str, tmp_path: Path, clock: FakeClock, place: str
) -> None:
    parts = make_services(sqlite_url, artefacts=place, keep_days=30, workers=0)
    content = save({"fc.weight": np.ones((2, 2), np.float32)})
    (tmp_path / "w.safetensors").write_bytes(content)
    with serving(parts) as server, server.client() as client:
        recipe = {"model": "resnet20_cifar", "weights": str(tmp_path / "w.safetensors"), "budgets": {"flops": "50%"}}
        job = client.submit(recipe)
        sha256 = hashlib.sha256(content).hexdigest()
        assert names(place) == [sha256], "an upload is in the bucket once it is whole"
        worked(server, tmp_path / "scratch")
        assert job.status()["state"] == "done"
        read = parts.files.get(job.id, "read.txt")
        model = parts.files.get(job.id, "model.bin")
        assert set(names(place)) >= {sha256, read.sha256, model.sha256}

        address = f"{server.url}/v1/jobs/{job.id}/files/model.bin"
        whole = httpx.get(address).content
        assert hashlib.sha256(whole).hexdigest() == model.sha256
        for asked, first, end in (("bytes=0-9", 0, 10), ("bytes=3000000-3000004", 3_000_000, 3_000_005)):
            answer = httpx.get(address, headers={"Range": asked})
            assert (answer.status_code, answer.content) == (206, whole[first:end])
        assert httpx.get(address, headers={"Range": "bytes=-7"}).content == whole[-7:]
        assert httpx.get(address, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416

        out = tmp_path / "out"
        (out / PARTS).mkdir(parents=True)
        (out / PARTS / model.sha256).write_bytes(whole[: 2 << 20])  # a download that broke off
        job.fetch(out)
        assert (out / "model.bin").read_bytes() == whole
        assert (out / "read.txt").read_text() == sha256, "the worker had what was uploaded"

        on_disk = {path.name for path in (tmp_path / "data").rglob("*") if path.is_file()}
        assert not any(model.sha256[2:] in name or sha256[2:] in name for name in on_disk)
        clock.advance(31 * 86400)
        parts.retention.sweep()
        with pytest.raises(NotFoundError):
            parts.jobs.get(job.id)
        clock.advance(2 * 86400)
        parts.retention.sweep()
        assert names(place) == []
        parts.store.check()
