"""``compressor.Client``: jobs on a service, from Python."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from compressor.errors import UsageError
from compressor.jobs.asked import Asked
from compressor.jobs.config import JobConfig
from compressor.jobs.recipes.keys import SCHEMA_VERSION, plain
from compressor.jobs.recipes.read import read_recipe
from compressor.jobs.recipes.write import recipe_values
from compressor.options import shown
from compressor.service.client.connection import Connection
from compressor.service.client.job import Job
from compressor.service.client.local import UPLOAD, local_files
from compressor.service.client.uploads import send
from compressor.service.loopback import exposed_key

SERVER, KEY = "COMPRESSOR_SERVER", "COMPRESSOR_KEY"
"""Where the environment says which service, and with which key."""
DEFAULT_SERVER = "http://127.0.0.1:8080"
"""Where ``compress serve`` listens unless told otherwise."""
_ELSEWHERE = ("out", "force", "workers")
"""What says where a sweep runs, not what it is."""


def _nobody(text: str) -> None:
    """Whom lines are told that nobody asked for."""


class Client:
    """A service that runs jobs (``compress serve``). Needs the extra ``client``.

        client = compressor.Client("https://compress.example.org", key)
        job = client.submit({"model": "resnet18", "budgets": {"flops": "50%"}})
        job.wait()
        job.fetch("small")

    Args:
        url: of the service; by default what COMPRESSOR_SERVER says, else ``http://127.0.0.1:8080``.
        key: of the API; by default what COMPRESSOR_KEY says, else none.
        transport: of httpx, instead of the network.

    A key that would go over plain HTTP to another machine is warned of (``UserWarning``).

    Raises:
        UsageError: an address or key that cannot be one. MissingDependencyError: httpx is not installed.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, transport: Any = None) -> None:
        address = url if url is not None else os.environ.get(SERVER) or DEFAULT_SERVER
        known = key if key is not None else os.environ.get(KEY) or None
        self._connection = Connection(address, known, transport=transport)
        if (exposed := exposed_key(address, known)) is not None:
            warnings.warn(exposed, stacklevel=2)

    @property
    def url(self) -> str:
        """The address of the service."""
        return self._connection.url

    def submit(
        self,
        recipe: Mapping[str, Any] | str | os.PathLike[str] | JobConfig | Asked,
        *,
        priority: int | None = None,
        name: str | None = None,
        project: str | None = None,
        kind: str | None = None,
        told: Callable[[str], None] = _nobody,
    ) -> Job:
        """Hand in a job. Weights (``.safetensors``) and data (``npz:FILE``, ``imagefolder:DIR``) that lie on this
        machine are uploaded first.

        Args:
            recipe: a mapping, a file or a folder as ``compressor.run`` takes them; a configuration; or what is asked of
                a sweep.
            priority: larger ones go first.
            project: whose job it is, for keys of all projects.
            kind: ``"compress"`` or ``"sweep"``; None tells it from the recipe.
            told: is told, in a line, what is being sent.

        Raises:
            UsageError: the recipe cannot be used, here or there. ServerAwayError, TooManyError, ForbiddenError, ...
        """
        values = _values(recipe, kind)
        with local_files(values) as files:
            for file in files:
                values[file.key] = f"{UPLOAD}{send(self._connection, file, told)}"
        asked = {"priority": priority, "name": name, "project": project, "kind": kind}
        made = self._connection.document(
            "POST",
            "/jobs",
            json=values,
            params={key: value for key, value in asked.items() if value is not None},
            # Sent twice where the connection breaks, it is one job.
            headers={"Idempotency-Key": uuid.uuid4().hex},
        )
        return self.job(made.get("id", ""))

    def job(self, id: str) -> Job:
        """A handle on a job by its id."""
        return Job(self._connection, id)

    def jobs(
        self,
        state: str | None = None,
        *,
        project: str | None = None,
        query: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Documents of jobs, the latest first; those before the id ``before``, for the next page."""
        asked = {"state": state, "project": project, "q": query, "before": before, "limit": limit}
        return self._listed("/jobs", "jobs", **{k: v for k, v in asked.items() if v is not None})

    def devices(self) -> list[dict[str, Any]]:
        """Devices that agents have brought, with their runtimes and whether they are there now."""
        return self._listed("/devices", "devices")

    def models(self) -> list[str]:
        """Names that ``model`` of a recipe takes there."""
        return [str(name) for name in self._listed("/models", "models")]

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _listed(self, path: str, name: str, **params: Any) -> list[Any]:
        found = self._connection.document("GET", path, params=params).get(name)
        return found if isinstance(found, list) else []


def _values(recipe: Any, kind: str | None) -> dict[str, Any]:
    """What is sent: the recipe in JSON values."""
    if isinstance(recipe, JobConfig):
        return _sendable(recipe_values(recipe))
    if isinstance(recipe, Asked):
        return _sendable(_of_sweep(recipe))
    if isinstance(recipe, Mapping):
        found: dict[str, Any] = plain(recipe)
        return found
    if isinstance(recipe, (str, os.PathLike)):
        asked = read_recipe(recipe, sweep=kind == "sweep")
        return _sendable(_of_sweep(asked) if kind == "sweep" else recipe_values(asked.job()))
    raise UsageError(f"recipe must be a file, a folder or a mapping, not {shown(recipe)}.")


def _of_sweep(asked: Asked) -> dict[str, Any]:
    """A sweep as a recipe: what was said of it."""
    said = {name: plain(value) for name, value in asked.values.items() if value is not None and name not in _ELSEWHERE}
    return {"schema_version": SCHEMA_VERSION, **said, "budgets": plain(asked.budgets), **plain(asked.options)}


def _sendable(values: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing, and may not be said to a service."""
    return {name: value for name, value in values.items() if not (name in ("track", "trust_factories") and not value)}
