"""What a worker is told."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from platformdirs import user_cache_dir

from compressor.errors import UsageError
from compressor.options import shown
from compressor.service.worker.limits import Limits

CODE = "code"
"""The label of workers that run the user's own code, and of jobs that have some."""
Code = Literal["no", "sandboxed", "unsandboxed"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class WorkerConfig:
    """How a worker works.

    Attributes:
        server: the URL of the service.
        key: its API key with the scope ``agent``; None where the service has no keys.
        name: tells workers apart, in lists and in ``scratch``.
        labels: what it has; it takes jobs whose labels are all among them.
        code: whether it runs the user's own code: not at all, in a sandbox, or without one.
        scratch: where folders of jobs are made.
        datasets: data sets by the names that recipes use.
        hidden: places that no job may see, wherever they lie.
        warm: whether the next child imports its libraries before there is a job for it.
        sandbox: None takes one where it works; False never.
        work: what a child does, ``package.module:function``; another one in tests alone.
        python_path: folders with modules of the user's own, which a child may read if ``code`` says so.
        snapshot_seconds: how often what a job has is stored, beside the end of each stage.
        wait_seconds: how long to wait for a job in one request.
    """

    server: str
    key: str | None = field(default=None, repr=False)
    name: str = "worker"
    labels: tuple[str, ...] = ()
    code: Code = "no"
    limits: Limits = field(default_factory=Limits)
    scratch: Path = field(default_factory=lambda: default_scratch())
    datasets: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[Path, ...] = ()
    warm: bool = True
    sandbox: bool | None = None
    work: str = "compressor.service.worker.work:run"
    python_path: tuple[str, ...] = ()
    snapshot_seconds: float = 60.0
    wait_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"--name is {shown(self.name)}; a worker's name has letters, digits, '-', '_' and '.', at most 63."
            )
        for label in self.labels:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}", label):
                raise UsageError(f"--label is {shown(label)}; a label has letters, digits, '-', '_', '.' and ':'.")
        if not re.match(r"https?://[^/\s]", self.server):
            raise UsageError(f"--server is {shown(self.server)}; write it as http://HOST:PORT or https://HOST.")

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The labels, with that of user code where it is run."""
        own = tuple(label for label in self.labels if label != CODE)
        return own if self.code == "no" else (*own, CODE)

    @property
    def folder(self) -> Path:
        """Where this worker's folders of jobs are."""
        return self.scratch / self.name


def default_scratch() -> Path:
    """Where folders of jobs are made unless said otherwise."""
    return Path(user_cache_dir("compressor")) / "worker"


def default_name() -> str:
    """A name for a worker of this machine."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).strip("-._")[:50] or "worker"


def datasets_of(text: str | None) -> dict[str, str]:
    """``name=spec,name=spec`` or JSON, as a server's ``COMPRESSOR_DATASETS``. Raises ``UsageError``."""
    if not text or not text.strip():
        return {}
    try:
        if text.lstrip().startswith("{"):
            found = json.loads(text)
            if not all(isinstance(each, str) for pair in found.items() for each in pair):
                raise ValueError
            return dict(found)
        pairs = [part.partition("=") for one in text.split(",") if (part := one.strip())]
        if any(not equals for _, equals, _ in pairs):
            raise ValueError
    except ValueError as error:
        raise UsageError(f"COMPRESSOR_DATASETS is {shown(text)}; write name=spec,name=spec, or JSON.") from error
    return {name.strip(): spec.strip() for name, _, spec in pairs}


def hidden_places(environment: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Where a server on this machine keeps what no job may see, as far as that is known."""
    from platformdirs import user_data_dir

    said = os.environ if environment is None else environment
    found = [Path(user_data_dir("compressor"))]
    if folder := said.get("COMPRESSOR_DATA_DIR"):
        found.append(Path(folder))
    for name in ("COMPRESSOR_DATABASE_URL", "COMPRESSOR_ARTEFACTS"):
        text = said.get(name, "").removeprefix("file://").removeprefix("sqlite:///")
        if text.startswith("/"):
            found.append(Path(text))
    return tuple(path.absolute() for path in found)


def data_place(spec: object) -> str | None:
    """The absolute path in ``cifar10:/data/cifar10``; None if there is none."""
    place = spec.partition(":")[2].partition(",")[0] if isinstance(spec, str) else ""
    return place if os.path.isabs(place) else None
