"""Pretrained weights by name: fetched before a job that names them begins, since jobs themselves have no network.

They go where the libraries keep them, and jobs read them there. Only names of the program's own sources are fetched, by
the program's own code, in a process of its own; nothing of a user runs in it.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from compressor.printable import printable
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.surroundings import environment, hugging_face_home, torch_home

_log = logging.getLogger(__name__)
_NAME = re.compile(r"(timm:)?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
_AGAIN_SECONDS = 600.0
"""After which weights are asked for again that could not be had."""
_LONGEST_SECONDS = 3600.0
_LOOK_SECONDS = 0.25
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


class Weights:
    """What this worker has fetched. ``command`` fetches a name; another one in tests alone."""

    def __init__(self, config: WorkerConfig, command: tuple[str, ...] | None = None) -> None:
        self._folder = config.folder / "weights"
        self._command = command or (sys.executable, "-m", "compressor.service.worker.fetching")
        self._next: dict[str, float] = {}

    def make_places(self, said: Mapping[str, str]) -> None:
        """Make the folders of the caches, which jobs get to see when they begin."""
        for place in (torch_home(said) / "hub" / "checkpoints", hugging_face_home(said) / "hub"):
            with suppress(OSError):  # whoever loads weights there tells it
                place.mkdir(parents=True, exist_ok=True)

    def wanted(self, recipe: Mapping[str, Any]) -> str | None:
        """The model whose weights are to be fetched for a recipe; None if there is nothing to fetch."""
        model, weights = recipe.get("model"), recipe.get("weights", "default")
        if weights != "default" or not isinstance(model, str) or not _NAME.fullmatch(model):
            return None
        return model if time.monotonic() >= self._next.get(model, 0.0) else None

    def fetch(self, model: str, said: Mapping[str, str], go_on: Callable[[], bool]) -> str | None:
        """Fetch the weights of a model; returns why that failed, if it did: the job says what follows from it.

        Args:
            said: the worker's environment.
            go_on: asked again and again; False gives it up.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        own = environment(str(self._folder), "", said=said)
        own = {name: value for name, value in own.items() if name not in _OFFLINE}
        own |= {name: said[name] for name in _PROXIES if name in said}
        process = subprocess.Popen(
            [*self._command, model],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            env=own,
        )
        end = time.monotonic() + _LONGEST_SECONDS
        try:
            while process.poll() is None and time.monotonic() < end and go_on():
                with suppress(subprocess.TimeoutExpired):  # looks again
                    process.wait(timeout=_LOOK_SECONDS)
            done = process.poll()
        finally:
            process.kill()
            text, _ = process.communicate()
        self._next[model] = float("inf") if done == 0 else time.monotonic() + _AGAIN_SECONDS
        return None if done == 0 else printable(text.decode(errors="replace").strip()[:500]) or "it was given up"
