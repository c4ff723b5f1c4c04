"""Names of models, which torch alone knows: asked for in a process of their own, and kept in a file."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from compressor.errors import UsageError
from compressor.service.errors import ServiceError
from compressor.service.logs import LOGGER
from compressor.storage.files import atomic_write_text
from compressor.storage.reading import parse_json, read_bytes

SECONDS = 120.0
_logger = logging.getLogger(LOGGER)


class NamesAwayError(ServiceError):
    """The names could not be found out just now."""

    status = 503
    retry_after = 30


class ModelNames:
    """The names that ``compress models`` lists.

    Args:
        file: where they are kept; another version of the program or of torchvision asks anew.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._names: list[str] | None = None
        self._looked = False

    def models_if_known(self) -> list[str] | None:
        """The names, if they are known without asking."""
        if self._names is None and not self._looked:
            self._looked = True
            self._names = self._kept()
        return self._names

    def models(self) -> list[str]:
        """The names; the first time this takes as long as importing torch. Raises ``NamesAwayError``."""
        if (known := self.models_if_known()) is not None:
            return known
        with self._lock:
            if self._names is None:
                self._names = _asked()
                with suppress(OSError):  # they are asked for again after the next start
                    atomic_write_text(self._file, json.dumps({"made_by": _made_by(), "models": self._names}))
        return self._names

    def find_soon(self) -> None:
        """Begin to find them out in the background, unless they are known."""
        if self.models_if_known() is None:
            threading.Thread(target=self._try, name="model names", daemon=True).start()

    def _try(self) -> None:
        try:
            self.models()
        except NamesAwayError as error:
            _logger.warning("%s", error)

    def _kept(self) -> list[str] | None:
        try:
            document = parse_json(read_bytes(self._file, "it is made anew", limit=1 << 20))
        except (UsageError, ValueError):
            return None
        if not isinstance(document, dict) or document.get("made_by") != _made_by():
            return None
        names = document.get("models")
        return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None


def _made_by() -> str:
    found = []
    for name in ("compressor", "torchvision"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(name)
    return ", ".join(found)


def _asked() -> list[str]:
    command = [sys.executable, "-m", "compressor", "models", "--format", "json"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, check=True, stdin=subprocess.DEVNULL, start_new_session=True
        )
        names = json.loads(done.stdout)["models"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise NamesAwayError(f"The names of models could not be found out ({type(error).__name__}).") from error
    return [str(name) for name in names]
