"""Names of what is written into the audit log."""

from __future__ import annotations

import pytest

from compressor.service.access.trail import action


@pytest.mark.parametrize(
    ("method", "path", "params", "expected"),
    [
        ("POST", "/v1/jobs", {}, "job.submit"),
        ("POST", "/v1/jobs/1a/cancel", {"job_id": "1a"}, "job.cancel"),
        ("POST", "/v1/jobs/1a/pick", {"job_id": "1a"}, "job.pick"),
        ("DELETE", "/v1/jobs/1a", {"job_id": "1a"}, "job.delete"),
        ("POST", "/v1/uploads", {}, "upload.create"),
        ("POST", "/v1/uploads/1a/finish", {"id": "1a"}, "upload.finish"),
        ("DELETE", "/v1/devices/jetson-1", {"name": "jetson-1"}, "device.delete"),
        ("POST", "/jobs/1a/cancel", {"id": "1a"}, "job.cancel"),
        ("POST", "/", {}, "post /"),
    ],
)
def test_actions(method: str, path: str, params: dict[str, str], expected: str) -> None:
    assert action(method, path, params) == expected
