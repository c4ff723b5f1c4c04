"""Tests of the service need what it needs: without it (``pip install 'compressor[serve]'``) there are none to run."""

from __future__ import annotations

from importlib.util import find_spec

MISSING = [
    name
    for name in ("alembic", "fastapi", "fsspec", "httpx", "jinja2", "pydantic_settings", "sqlalchemy", "uvicorn")
    if find_spec(name) is None
]
collect_ignore_glob = ["*"] if MISSING else []

if not MISSING:
    from tests.service.fixtures import (
        ServicesMaker,
        _no_settings_of_the_environment,
        bucket,
        clock,
        database_url,
        make_services,
        postgres_server,
        postgres_template,
        postgres_url,
        services,
        sqlite_services,
        sqlite_template,
        sqlite_url,
    )

    __all__ = [
        "ServicesMaker",
        "_no_settings_of_the_environment",
        "bucket",
        "clock",
        "database_url",
        "make_services",
        "postgres_server",
        "postgres_template",
        "postgres_url",
        "services",
        "sqlite_services",
        "sqlite_template",
        "sqlite_url",
    ]
