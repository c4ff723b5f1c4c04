"""Files over HTTP: whole, in parts, and nothing that is not a job's."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from compressor.service.api.ranges import UnsatisfiableError, read_range
from compressor.service.records import FileRecord
from compressor.service.services import Services

DATA = bytes(range(256)) * 5000
REPORT = {
    "schema_version": 1,
    "budgets": [{"cost": "flops", "unit": "MACs", "asked": "30%", "original": 100.0, "limit": 30.0, "reached": 29.0}],
    "costs": [{"name": "params", "unit": "parameters", "original": 50.0, "reached": 20.0}],
}
PAGE = b"<!doctype html><script>alert(1)</script>"


@pytest.fixture
def job(submit: Callable[..., dict[str, Any]], claim: Callable[..., dict[str, Any]], parts: Services) -> str:
    """A job that is done, with files."""
    job = str(submit()["id"])
    token = claim()["token"]
    contents = {
        "model.onnx": DATA,
        "report.json": json.dumps(REPORT).encode(),
        "report.html": PAGE,
        "points/one/model.onnx": b"",
        ".stages/search.json": b"{}",
        "naïve name.txt": b"x",
    }
    files = [FileRecord(path, *parts.blobs.put(io.BytesIO(content))) for path, content in contents.items()]
    assert parts.files.snapshot(job, token, files) == []
    parts.leases.end(job, token, "done")
    return job


def test_files_are_listed_without_what_a_job_keeps_for_itself(client: TestClient, job: str) -> None:
    found = client.get(f"/v1/jobs/{job}/files").json()["files"]
    assert [each["path"] for each in found] == sorted(
        ["model.onnx", "naïve name.txt", "points/one/model.onnx", "report.html", "report.json"]
    )
    assert next(each for each in found if each["path"] == "model.onnx")["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_a_file_comes_whole_and_says_what_it_is(client: TestClient, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/files/model.onnx")
    assert answer.content == DATA
    assert answer.headers["etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''model.onnx"
    assert answer.headers["accept-ranges"] == "bytes"
    assert client.get(f"/v1/jobs/{job}/files/points/one/model.onnx").content == b""
    odd = client.get(f"/v1/jobs/{job}/files/naïve name.txt")
    assert odd.content == b"x"
    assert odd.headers["content-disposition"].endswith("na%C3%AFve%20name.txt")
    head = client.head(f"/v1/jobs/{job}/files/model.onnx")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(DATA)), b"")


@pytest.mark.parametrize(
    ("header", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-99", 10, 100),
        ("bytes=1279999-", 1279999, 1280000),
        ("bytes=-5", 1279995, 1280000),
        ("bytes=5-99999999", 5, 1280000),
        ("bytes=-99999999", 0, 1280000),
    ],
)
def test_parts(client: TestClient, job: str, header: str, first: int, end: int) -> None:
    answer = client.get(f"/v1/jobs/{job}/files/model.onnx", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == DATA[first:end]
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(DATA)}"


def test_parts_of_another_file_are_not_mixed_in(client: TestClient, job: str) -> None:
    headers = {"Range": "bytes=0-9", "If-Range": '"other"'}
    answer = client.get(f"/v1/jobs/{job}/files/model.onnx", headers=headers)
    assert (answer.status_code, answer.content) == (200, DATA)
    etag = answer.headers["etag"]
    assert client.get(f"/v1/jobs/{job}/files/model.onnx", headers={**headers, "If-Range": etag}).status_code == 206
    assert client.get(f"/v1/jobs/{job}/files/model.onnx", headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("If-None-Match", "*", 304),
        ("If-None-Match", "W/{etag}", 304),
        ("If-None-Match", '"other", {etag}', 304),
        ("If-None-Match", '"other"', 200),
        ("If-None-Match", "", 200),
        ("If-Match", "*", 200),
        ("If-Match", '"other",{etag}', 200),
        ("If-Match", '"other"', 412),
        ("If-Match", "W/{etag}", 412),
        ("If-Match", "{etag}x", 200),
    ],
)
def test_conditions(client: TestClient, job: str, header: str, value: str, status: int) -> None:
    etag = f'"{hashlib.sha256(DATA).hexdigest()}"'
    for method in ("GET", "HEAD"):
        headers = {header: value.format(etag=etag)}
        assert client.request(method, f"/v1/jobs/{job}/files/model.onnx", headers=headers).status_code == status


def test_parts_that_are_not_there(client: TestClient, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/files/model.onnx", headers={"Range": "bytes=99999999-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(DATA)}")


@pytest.mark.parametrize(
    "header", ["bytes=5-1", "bytes=0-1,5-6", "lines=1-2", "bytes=a-b", "bytes=-", "bytes=" + "9" * 99]
)
def test_ranges_that_are_none_give_the_whole(header: str) -> None:
    assert read_range(header, 100) is None


def test_ranges_of_nothing() -> None:
    with pytest.raises(UnsatisfiableError):
        read_range("bytes=0-", 0)
    with pytest.raises(UnsatisfiableError):
        read_range("bytes=-0", 10)


@pytest.mark.parametrize(
    "path",
    [
        ".stages/search.json",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "points/%2e./model.onnx",
        "points\\..\\model.onnx",
        "model.onnx%00.txt",
        "points",
        "",
        "model.onnx/",
    ],
)
def test_nothing_else_is_served(client: TestClient, job: str, path: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/files/{path}")
    assert answer.status_code in (400, 404)
    assert b"root:" not in answer.content


def test_the_report_as_a_document_and_as_a_page_without_scripts(client: TestClient, job: str) -> None:
    assert client.get(f"/v1/jobs/{job}/report").json() == REPORT
    page = client.get(f"/v1/jobs/{job}/report", params={"format": "html"})
    assert page.content == PAGE
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert "script" not in policy
    download = client.get(f"/v1/jobs/{job}/files/report.html")
    assert download.headers["content-type"] == "application/octet-stream"
    assert download.headers["content-disposition"].startswith("attachment")


def test_costs_come_from_the_report(client: TestClient, job: str) -> None:
    found = client.get(f"/v1/jobs/{job}").json()
    assert found["costs"]["flops"] == {"value": 29.0, "original": 100.0, "unit": "MACs"}
    assert found["costs"]["params"]["value"] == 20.0
    assert found["files"] == 5


def test_a_job_without_a_report_says_so(client: TestClient, submit: Callable[..., dict[str, Any]]) -> None:
    answer = client.get(f"/v1/jobs/{submit()['id']}/report")
    assert answer.status_code == 404
    assert "queued" in answer.json()["detail"]


def test_the_report_of_a_sweep_is_its_front(
    client: TestClient, submit: Callable[..., dict[str, Any]], claim: Callable[..., dict[str, Any]], parts: Services
) -> None:
    sweep = submit({"model": "resnet20_cifar", "weights": "none", "budgets": {"flops": ["30%", "60%"]}})["id"]
    token = claim()["token"]
    contents = {"front.json": b'{"points": []}', "front.html": PAGE}
    files = [FileRecord(path, *parts.blobs.put(io.BytesIO(content))) for path, content in contents.items()]
    parts.files.snapshot(sweep, token, files)
    parts.leases.end(sweep, token, "done")
    assert client.get(f"/v1/jobs/{sweep}/report").json() == {"points": []}
    page = client.get(f"/v1/jobs/{sweep}/report", params={"format": "html"})
    assert (page.content, page.headers["content-type"]) == (PAGE, "text/html; charset=utf-8")
