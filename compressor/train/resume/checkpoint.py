"""Checkpoints: one safetensors file each, the JSON part in its header, moved into place whole."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from compressor.errors import UsageError
from compressor.storage.files import atomic_save_safetensors, load_safetensors, remove_dead_temporaries
from compressor.storage.reading import LARGE, parse_json
from compressor.train.resume.tree import flatten, unflatten

SCHEMA_VERSION = 1
_SHARE = 0.05
"""Largest share of the time that writing checkpoints may take."""


class Checkpoint:
    """The checkpoint file of one training run, and when to write it again.

    Args:
        path: where it lies; None keeps nothing.
        interval_s: seconds between checkpoints. Stretched where a write takes so long that writing would take more
            than a twentieth of the time; 0 writes after every step, whatever it takes. When it is written never
            changes what comes out of the training.
    """

    def __init__(self, path: Path | None, interval_s: float) -> None:
        self.path = path
        self._interval_s = interval_s
        self._last = time.monotonic()
        self._cost_s = 0.0
        if path is not None:
            remove_dead_temporaries(path.parent)

    def note(self) -> str:
        """A clause for error messages that says where the last good state is; empty if there is none."""
        return f"; the last good state is kept in {self.path}" if self.path is not None and self.path.exists() else ""

    def due(self, *, epoch_end: bool = False) -> bool:
        """Whether it is time to write: the interval has passed, or an epoch ends and a write costs little."""
        if self.path is None:
            return False
        if not self._interval_s:
            return True
        since = time.monotonic() - self._last
        return since >= (0.0 if epoch_end else self._interval_s) and since * _SHARE >= self._cost_s

    def save(self, state: dict[str, Any], fingerprint: dict[str, Any]) -> None:
        """Write ``state`` (nested tensors and JSON values). Raises ``CompressorError`` if the disk is full."""
        if self.path is None:
            return
        started = time.monotonic()
        tensors: dict[str, Tensor] = {}
        content = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": fingerprint,
            "state": flatten(state, tensors, "state"),
        }
        atomic_save_safetensors(self.path, tensors, {"checkpoint": json.dumps(content)})
        self._last = time.monotonic()
        self._cost_s = self._last - started

    def forget_former(self, fingerprint: dict[str, Any], settings: Collection[str]) -> str:
        """Delete the checkpoint if it is one of this run as an earlier version of the program would have made it: with
        others of ``settings``, and on the same data. Returns what differs; empty if nothing was deleted."""
        if self.path is None or not self.path.exists():
            return ""
        content = self._content()[0]
        wanted, found = json.loads(json.dumps(fingerprint)), content["fingerprint"]
        if content.get("schema_version") != SCHEMA_VERSION or not isinstance(found, dict) or found == wanted:
            return ""
        if not {name for name in {**wanted, **found} if found.get(name) != wanted.get(name)} <= set(settings):
            return ""
        self.path.unlink()
        return _difference(content, wanted)

    def load(self, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
        """The saved state, or None if there is no checkpoint.

        Raises:
            UsageError: the file is no checkpoint, or is one of a run that was told something else.
        """
        if self.path is None or not self.path.exists():
            return None
        content, tensors = self._content()
        wanted = json.loads(json.dumps(fingerprint))
        if content.get("schema_version") != SCHEMA_VERSION or content.get("fingerprint") != wanted:
            raise UsageError(
                f"{self.path} is the checkpoint of another training run ({_difference(content, wanted)}); "
                "delete it to start anew, or name another file."
            )
        try:
            state: dict[str, Any] = unflatten(content["state"], tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{self.path} is a damaged training checkpoint; delete it and run again.") from error
        return state

    def _content(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The JSON part and the tensors. Raises ``UsageError`` if the file is no checkpoint."""
        assert self.path is not None
        tensors, metadata = load_safetensors(self.path)
        try:
            content = parse_json(metadata["checkpoint"].encode(), limits=LARGE, allow_nan=True)
        except (KeyError, ValueError) as error:
            raise UsageError(f"{self.path} is no training checkpoint; delete it or name another file.") from error
        if not isinstance(content, dict) or not {"fingerprint", "state"} <= set(content):
            raise UsageError(f"{self.path} is no training checkpoint; delete it or name another file.")
        return content, tensors


def _difference(content: dict[str, Any], wanted: dict[str, Any]) -> str:
    if content.get("schema_version") != SCHEMA_VERSION:
        return f"schema version {content.get('schema_version')}, this program writes {SCHEMA_VERSION}"
    found = content["fingerprint"]
    if not isinstance(found, dict):
        return "it has no settings"
    names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    return ", ".join(f"{name} was {found.get(name)}, now {wanted.get(name)}" for name in names[:3])
