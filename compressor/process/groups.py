"""Groups of processes: what somebody started in a session of its own, with all that it started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def kill_group(leader: int) -> None:
    """Kill a process and all of its group, whose id is the process's own. One that is over needs nothing more."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group that is dead
        os.killpg(leader, signal.SIGKILL)
