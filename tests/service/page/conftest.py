"""A page over a database of its own, and a worker that does what a test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'compressor[serve]'")
pytest.importorskip("jinja2", reason="the service is not installed: pip install 'compressor[serve]'")

from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.service.api.app import create_app
from compressor.service.services import Services
from tests.service.conftest import ServicesMaker
from tests.service.page.worked import Worked

HERE = "http://127.0.0.1:8080"


@pytest.fixture
def parts(make_services: ServicesMaker, sqlite_url: str) -> Services:
    return make_services(sqlite_url, workers=0, upload_bytes=1 << 20, datasets={"flowers": "imagefolder:/data/flowers"})


@pytest.fixture
def app(parts: Services) -> FastAPI:
    app = create_app(parts)
    app.state.names._names = ["resnet18", "resnet20_cifar"]
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=HERE, client=("127.0.0.1", 50000), follow_redirects=False) as found:
        yield found


@pytest.fixture
def worked(parts: Services) -> Worked:
    return Worked(parts)
