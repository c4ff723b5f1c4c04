"""Runs the process that looks at a model: in a sandbox where there is one, with limits, killed whole."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from compressor.errors import DataError
from compressor.process.groups import kill_group
from compressor.service.artefacts.blobs import Blobs
from compressor.service.errors import ServiceError
from compressor.service.recipes.places import replaced
from compressor.service.records import UploadRecord
from compressor.service.worker.config import data_place
from compressor.service.worker.errors import SandboxError
from compressor.service.worker.limits import Limits, Watch
from compressor.service.worker.materials import Fetch, place_uploads
from compressor.service.worker.processes import Group
from compressor.service.worker.sandbox import HOME, find_sandbox
from compressor.service.worker.surroundings import caches, environment
from compressor.storage.reading import Limits as JsonLimits
from compressor.storage.reading import parse_json

SECONDS = 120.0
_LOOK_SECONDS = 0.1
_ANSWER = JsonLimits(8 << 20, 400_000, 60_000)
MOST_IMAGES = 16
"""Of each folder of an archive: classes and shapes are those of all of them."""
_PIECE = 1 << 20
_UNPACKED = 1 << 30
LIMITS = Limits(memory_bytes=4 << 30, seconds=SECONDS, folder_bytes=256 << 20, folder_files=100, processes=64)


class InspectionError(ServiceError):
    """The model cannot be looked at; with the exit class that the command line would have."""

    status = 422

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class TooSlowError(ServiceError):
    """It took longer than it may."""

    status = 504


def fetch_from(blobs: Blobs) -> Fetch:
    """Copies contents of a server's own store."""

    def fetch(sha256: str, place: Path, size: int) -> None:
        with blobs.open(sha256) as source, place.open("xb") as file:
            shutil.copyfileobj(source, file, _PIECE)

    return fetch


def inspect_apart(
    recipe: Mapping[str, Any],
    kind: str,
    uploads: Sequence[UploadRecord] = (),
    *,
    fetch: Fetch | None = None,
    datasets: Mapping[str, str] | None = None,
    limits: Limits = LIMITS,
) -> dict[str, Any]:
    """What ``trace.inspected`` finds, in a process of its own.

    Args:
        uploads: what the recipe names; the process gets copies of them.
        fetch: writes their contents.
        datasets: data sets by name. Those that only workers have are not looked at.
        limits: of the process; what the copies take comes on top.

    Raises:
        InspectionError: the recipe cannot be used, or the model cannot be traced.
        TooSlowError: it took longer than the limits allow.
    """
    with tempfile.TemporaryDirectory(prefix="compressor-inspect-") as name:
        folder = Path(name)
        for each in ("tmp", "home", "cache", "uploads"):
            (folder / each).mkdir()
        if uploads:
            assert fetch is not None
            try:
                places = place_uploads(uploads, folder, fetch, most_bytes=_UNPACKED, most_each=MOST_IMAGES)
            except DataError as refused:
                raise InspectionError(str(refused), refused.exit_code) from refused
            recipe, limits = replaced(recipe, places), _with_room(limits, folder)
        recipe, readable = _with_data(recipe, datasets or {})
        asked = json.dumps({"recipe": dict(recipe), "kind": kind}).encode()
        (folder / "asked.json").write_bytes(asked)
        with (folder / "asked.json").open("rb") as given, (folder / "answer.json").open("w+b") as answer:
            code = _run(folder, given, answer, limits, readable)
            answer.seek(0)
            data = answer.read(_ANSWER.bytes + 1)
    try:
        document = parse_json(data, limits=_ANSWER)
        found, error = document.get("found"), document.get("error")
    except (ValueError, AttributeError):
        found, error = None, None
    if isinstance(found, dict):
        return found
    if isinstance(error, dict):
        exit_code = error.get("exit_code")
        raise InspectionError(str(error.get("text")), exit_code if exit_code in (2, 3, 4, 5) else 4)
    raise InspectionError(f"The process that looked at the model ended with {code} and without an answer.", 4)


def _with_data(recipe: Mapping[str, Any], datasets: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The recipe with a registered data set as what reads it, and which places that needs."""
    spec = datasets.get(str(recipe.get("data")))
    if spec is None:
        return dict(recipe), []
    place = data_place(spec)
    if place is None or os.path.exists(place):
        return {**recipe, "data": spec}, [place] if place is not None else []
    without = {name: value for name, value in recipe.items() if name != "data"}
    return {**without, "search": recipe.get("search") or "figs"}, []  # as the job, which has data, would search


def _with_room(limits: Limits, folder: Path) -> Limits:
    """Limits of a process that has what lies in a folder already."""
    files = [path for path in (folder / "uploads").rglob("*") if path.is_file()]
    held = sum(path.stat().st_size for path in files)
    return replace(
        limits,
        folder_bytes=limits.folder_bytes + held,
        folder_files=limits.folder_files + 2 * len(files),
        memory_bytes=limits.memory_bytes + held,
    )


def _run(folder: Path, given: IO[bytes], answer: IO[bytes], limits: Limits, readable: Sequence[str]) -> int:
    """Run the process; its exit code. Raises as ``inspect_apart``."""
    mark, home = secrets.token_hex(8), str(folder)
    command = [sys.executable, "-m", "compressor.service.inspecting.trace"]
    with suppress(SandboxError):  # without one, what runs is the program's own code on checked names
        sandbox = find_sandbox()
        home = HOME
        command = sandbox.command(folder, command, readable=[*caches(), *readable])
    env = environment(home, mark) | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        stdin=given,
        stdout=answer,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=env,
        start_new_session=True,
        close_fds=True,
    )
    watch = Watch(limits, Group(process.pid, mark), folder)
    began = time.monotonic()
    try:
        while (code := process.poll()) is None:
            if time.monotonic() - began > limits.seconds:
                raise TooSlowError(
                    f"Looking at this model took longer than {limits.seconds:g} s; the job itself may not."
                )
            if (why := watch.exceeded()) is not None:
                raise InspectionError(why.replace("The job", "Looking at this model", 1), 4)
            time.sleep(_LOOK_SECONDS)
        return code
    finally:
        kill_group(process.pid)
        process.wait()
