"""An app over a database of its own, and somebody who asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.service.api.app import create_app
from compressor.service.services import Services, services_of
from compressor.service.settings import ServiceSettings

HERE = "http://127.0.0.1:8080"
RECIPE: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "data": "digits", "budgets": {"flops": "30%"}}


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return ServiceSettings(
        data_dir=tmp_path / "data", workers=0, most_queued=20, lease_seconds=30.0, upload_bytes=1 << 20
    )


@pytest.fixture
def parts(settings: ServiceSettings) -> Iterator[Services]:
    found = services_of(settings)
    yield found
    found.close()


@pytest.fixture
def app(parts: Services) -> FastAPI:
    return create_app(parts)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=HERE, client=("127.0.0.1", 50000)) as found:
        yield found


@pytest.fixture
def submit(client: TestClient) -> Callable[..., dict[str, Any]]:
    """Submits a recipe, and gives the job."""

    def done(recipe: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        answer = client.post("/v1/jobs", json=recipe or RECIPE, params=query)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return done


@pytest.fixture
def claim(client: TestClient) -> Callable[..., dict[str, Any]]:
    """Takes the next job as a worker, and gives what the worker got."""

    def done(**more: Any) -> dict[str, Any]:
        answer = client.post("/v1/work/claim", json={"worker": "w", "version": "1", **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return done
