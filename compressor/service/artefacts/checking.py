"""What an upload holds is looked at in a process of its own: readers of foreign formats have had holes, and a file that
takes all memory must not take the server with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from compressor.service.errors import StorageError

_SECONDS = 900.0
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV", "TMPDIR")


def why_refused(path: Path, kind: str, unpacked: int) -> str | None:
    """Why a file is not what its kind says, in a line; None if it is.

    Args:
        kind: ``weights``, ``arrays`` or ``images``.
        unpacked: the most bytes that packed content may have.

    Raises:
        StorageError: it could not be looked at.
    """
    command = [sys.executable, "-m", "compressor.service.artefacts.contents", kind, str(path.absolute()), str(unpacked)]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[3],  # the program is found there, installed or not
            env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it could not be checked within {_SECONDS:.0f} seconds; send fewer files, or smaller ones."
    except OSError as error:
        raise StorageError(f"The upload cannot be checked: {error.strerror or error}.") from error
    if done.returncode == 0:
        try:
            reason = json.loads(done.stdout)["reason"]
        except (ValueError, KeyError, TypeError):
            reason = "its check ended without an answer"
        return None if reason is None else str(reason)
    if done.returncode < 0:
        return "checking it took too much memory or time; it is damaged, or made to do harm."
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    if "MemoryError" in last[0]:
        return "checking it took too much memory; it is damaged, or made to do harm."
    raise StorageError(f"The upload cannot be checked: {last[0][:200]}")
