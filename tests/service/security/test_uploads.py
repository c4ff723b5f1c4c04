"""Uploads are what they say, within their size, and nothing in them is run."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.service.security.scenes import RECIPE, UNPICKLED
from tests.service.strangers import Caller


def upload(client: Caller, kind: str, content: bytes, name: str = "a", **more: Any) -> Any:
    """Send a file; the answer to ``finish``, or to what was refused before."""
    begun = client.post("/v1/uploads", json={"name": name, "kind": kind, "bytes": len(content), **more})
    if begun.status_code != 201:
        return begun
    place = f"/v1/uploads/{begun.json()['id']}"
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    sent = client.patch(place, content=content, headers=headers)
    return sent if sent.status_code != 200 else client.post(f"{place}/finish")


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def test_oversized_uploads_are_refused_before_they_are_read(local: Caller) -> None:
    new = {"name": "a", "kind": "arrays", "bytes": 10}
    assert local.post("/v1/uploads", json={**new, "bytes": (1 << 20) + 1}).status_code == 413
    for size in (-1, 0.5, "x", 2**70, None):
        assert local.post("/v1/uploads", json={**new, "bytes": size}).status_code in (413, 422)
    place = f"/v1/uploads/{local.post('/v1/uploads', json=new).json()['id']}"
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert local.patch(place, content=b"x" * 11, headers=headers).status_code == 413
    assert local.patch(place, content=b"x", headers={**headers, "Content-Length": str(1 << 40)}).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 6
        yield b"x" * 6

    assert local.patch(place, content=chunks(), headers=headers).status_code == 413
    for offset in ("-1", "5", "x", "1e3", "9" * 30):
        assert local.patch(place, content=b"x", headers={**headers, "Upload-Offset": offset}).status_code in (409, 422)


def test_truncated_uploads_and_those_of_another_hash_are_no_uploads(local: Caller) -> None:
    content = npz(x=np.zeros(3))
    begun = local.post("/v1/uploads", json={"name": "a", "kind": "arrays", "bytes": len(content)}).json()["id"]
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert local.patch(f"/v1/uploads/{begun}", content=content[:-1], headers=headers).status_code == 200
    assert local.post(f"/v1/uploads/{begun}/finish").status_code in (409, 422)
    assert local.post("/v1/jobs", json={**RECIPE, "data": f"upload:{begun}"}).status_code == 422
    assert upload(local, "arrays", content, sha256="0" * 64).status_code == 422
    assert upload(local, "arrays", content[: len(content) // 2]).status_code == 422


class Evil:
    """What runs something when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(UNPICKLED),))


def pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([Evil()], dtype=object))
    return stream.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


def test_uploads_that_are_not_what_they_say_are_refused(local: Caller) -> None:
    import pickle

    zeros = b"\0" * (20 << 20)
    bomb = zipped(*((f"{n}.npy", zeros) for n in range(4)))
    assert 900 * len(bomb) < 4 * len(zeros)
    image = b"\x89PNG\r\n\x1a\n" + b"\0" * 50
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    cases = [
        ("weights", pickle.dumps(Evil())),
        ("weights", zipped(("archive/data.pkl", pickle.dumps(Evil())))),
        ("weights", len(header).to_bytes(8, "little") + header),
        ("weights", (1 << 60).to_bytes(8, "little") + b"{}"),
        ("weights", b"\x7fELF" + b"\0" * 100),
        ("arrays", pickled()),
        ("arrays", pickle.dumps(Evil())),
        ("arrays", bomb),
        ("arrays", zipped(("../../x.npy", b"x"))),
        ("images", zipped(("../../../etc/cron.d/x.png", image))),
        ("images", zipped(("/etc/x.png", image))),
        ("images", zipped(("cat\\..\\..\\x.png", image))),
        ("images", zipped(("cat/x.py", b"import os"))),
        ("images", zipped(*((f"cat/{n}.png", zeros) for n in range(4)))),
        ("images", b"PK\x03\x04" + b"\0" * 60),
        ("images", b""),
        ("something", b"x"),
    ]
    for kind, content in cases:
        answer = upload(local, kind, content)
        assert answer.status_code in (413, 422), (kind, content[:40])
        assert answer.headers["content-type"] == "application/problem+json"
    assert not Path(UNPICKLED).exists()
    assert all(each["state"] != "done" for each in local.get("/v1/uploads").json()["uploads"])
