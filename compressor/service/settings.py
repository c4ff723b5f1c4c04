"""What can be set for a server: by ``COMPRESSOR_...`` in the environment, or options of ``compress serve``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_dir
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from compressor.errors import UsageError


def _default_folder() -> Path:
    return Path(user_data_dir("compressor")) / "service"


class ServiceSettings(BaseSettings):
    """Settings of a server. Lists are written with commas, ``datasets`` as ``name=spec,name=spec`` or as JSON."""

    model_config = SettingsConfigDict(env_prefix="COMPRESSOR_", extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    """0 takes any that is free."""
    data_dir: Path = Field(default_factory=_default_folder)
    database_url: str | None = None
    """None: SQLite, in ``data_dir/service.sqlite``."""
    artefacts: str | None = None
    """A folder or an fsspec URL (``s3://bucket/folder``); None: ``data_dir/artefacts``."""
    workers: int = Field(1, ge=0, le=256)
    """Worker processes that the server starts itself."""
    most_queued: int = Field(1000, ge=1)
    """Queued jobs per project."""
    most_running: int | None = Field(None, ge=1)
    """Running jobs per project; None: as many as there are workers."""
    lease_seconds: float = Field(30.0, gt=0)
    """How long a worker may be silent before its job goes to another."""
    most_attempts: int = Field(3, ge=1)
    """A job that as many workers died of has failed."""
    device_away_seconds: float = Field(20.0, gt=0)
    """A device whose agent was silent for longer is away."""
    device_patience_seconds: float = Field(3600.0, ge=0)
    """How long a running job waits for a device that is away before it fails."""
    device_lease_seconds: float = Field(30.0, gt=0)
    """How long an agent may be silent over a measurement before it is queued again."""
    upload_bytes: int = Field(2 << 30, ge=1)
    """Bytes per uploaded file."""
    storage_bytes: int | None = Field(None, ge=1)
    """Bytes per project, of uploads and of jobs' files."""
    keep_days: float | None = Field(None, gt=0)
    """Ended jobs are deleted after as many days; None: never."""
    datasets: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    """Data sets by the names that recipes use, as ``--data`` takes them: ``{"cifar10": "cifar10:/data/cifar10"}``."""
    allowed_hosts: Annotated[list[str], NoDecode] = Field(default_factory=list)
    trusted_proxies: Annotated[list[str], NoDecode] = Field(default_factory=list)
    """Networks whose ``proxy_header`` is believed."""
    proxy_header: str | None = None
    proxy_scopes: Annotated[tuple[str, ...], NoDecode] = ("read", "submit")
    proxy_project: str = "default"
    """Scopes and project of whom the proxy has signed in."""
    open_metrics: bool = False
    """Whether ``/metrics`` needs no key."""
    allow_hf: bool = False
    """Whether recipes may name ``hf:`` models, which are then taken from the local cache alone."""
    log_format: Literal["text", "json"] = "text"

    @field_validator("allowed_hosts", "trusted_proxies", "proxy_scopes", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [part for one in value.split(",") if (part := one.strip())] if isinstance(value, str) else value

    @field_validator("datasets", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("{"):
            return json.loads(value)
        pairs = [part.partition("=") for one in value.split(",") if (part := one.strip())]
        if any(not equals for _, equals, _ in pairs):
            raise ValueError("expected name=spec,name=spec")
        return {name.strip(): spec.strip() for name, _, spec in pairs}

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'service.sqlite').absolute()}"

    @property
    def artefacts_url(self) -> str:
        """The folder or URL of the artefacts."""
        return self.artefacts or str((self.data_dir / "artefacts").absolute())

    @property
    def uploads_dir(self) -> Path:
        """Where chunks of unfinished uploads lie."""
        return self.data_dir / "uploads"


def settings_of(**given: Any) -> ServiceSettings:
    """Settings of the environment under those given (None: not given). Raises ``UsageError`` in one line."""
    try:
        return ServiceSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise UsageError(f"The setting {name} is {first['input']!r}: {first['msg']} (see docs/service.md).") from error
