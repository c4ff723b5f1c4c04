"""What tests of security share: what is secret, and a job that is done."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from compressor.service.records import FileRecord, NewJob
from compressor.service.services import Services

LOCAL: dict[str, Any] = {"base_url": "http://127.0.0.1:8080", "client": ("127.0.0.1", 50000)}
MARK = "secret-of-alpha"
UNPICKLED = str(Path(tempfile.gettempdir()) / "unpickled-by-the-service")
RECIPE = {"model": "resnet20_cifar", "weights": "none", "budgets": {"flops": "50%"}}
HTML = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def done_job(services: Services, project: str, name: str, files: dict[str, bytes], recipe: Any = None) -> str:
    """A job that is done, with files."""
    job = services.jobs.submit(NewJob(project=project, recipe=recipe or RECIPE, name=name, submitted_by=f"key:{name}"))
    claim = services.leases.claim("worker-1", project=project)
    assert claim is not None
    assert claim.job.id == job.id
    records = []
    for path, content in files.items():
        sha256, size = services.blobs.put(io.BytesIO(content))
        records.append(FileRecord(path, sha256, size))
    assert services.files.snapshot(job.id, claim.token, records) == []
    services.leases.end(job.id, claim.token, "done", None)
    return job.id
