"""A server on this machine that speaks S3, with a bucket. It keeps everything in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
from fsspec.config import conf

BUCKET = "bucket"


@contextmanager
def s3_serving() -> Iterator[str]:
    """Inside, fsspec finds a bucket at the URL that comes."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    server = server_of("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        host, port = server.get_host_and_port()
        patch.setitem(conf, "s3", {"endpoint_url": f"http://{host}:{port}"})  # FSSPEC_S3_ENDPOINT_URL, once imported
        try:
            fsspec.filesystem("s3").mkdir(BUCKET)
            yield f"s3://{BUCKET}"
        finally:
            server.stop()
            fsspec.filesystem("s3").clear_instance_cache()
