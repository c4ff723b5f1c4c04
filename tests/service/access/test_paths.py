"""Paths that climb."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from compressor.service.access.errors import BadRequestError
from compressor.service.access.paths import check_path


@pytest.mark.parametrize(
    "raw",
    [
        "/v1/jobs/../secret",
        "/v1/jobs/x/files/..%2f..%2fetc%2fpasswd",
        "/v1/jobs/x/files/%252e%252e%252fetc",
        "/v1/jobs/x/files/%2e%2e/a",
        "/v1/jobs/x/files/..%5c..%5cwin.ini",
        "/v1/jobs/x/files/a%00.json",
        "/v1/jobs/x/files/a%0d%0aSet-Cookie:%20x",
        "/v1/jobs/x/files/a%250d%250a",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "//evil.example/x",
        "/v1//jobs",
        "/v1/jobs/./x",
    ],
)
def test_they_are_refused(raw: str) -> None:
    with pytest.raises(BadRequestError):
        check_path({"path": unquote(raw)})


@pytest.mark.parametrize(
    "path", ["/", "/v1/jobs/0abc/files/onnx/model.onnx", "/v1/jobs/x/files/a b ü 50%.json", "/v1/jobs/x/files/a..b"]
)
def test_others_are_not(path: str) -> None:
    check_path({"path": path})
