"""A job in a world of its own: bubblewrap shows it the system, Python, this program and its own folder, no more.

Nothing is visible that is not named here, so a data folder, a database, keys or the folders of other jobs are not
there, whatever the code of a model looks for. There is no network, and no process of others to be seen.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from compressor.service.worker.errors import SandboxError

HOME = "/job"
"""Where a job finds its folder."""
_APART = ("--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_KINDS: tuple[tuple[str, ...], ...] = (
    ("--unshare-user", "--disable-userns"),
    ("--unshare-user",),
    (),  # an administrator's processes, or a bwrap that is setuid
)
"""Ways to begin, the strictest first: a namespace of users, in which none can be nested; one; the system's own."""
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_OF_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "timezone", "mime.types")
_PACKAGES = ("compressor", "profilers", "exporters", "lut")
_DEVICES = ("nvidia*", "dri", "kfd")
_SHARED_MEMORY = 1 << 30


@dataclass(frozen=True)
class Sandbox:
    """A way to start bubblewrap that works here."""

    kind: tuple[str, ...]

    def command(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        readable: Iterable[str] = (),
        hidden: Iterable[Path] = (),
        info: int | None = None,
    ) -> list[str]:
        """The command that runs ``command`` in the sandbox, in ``folder``.

        Args:
            folder: what it may write to; it has a folder ``tmp``.
            readable: files and folders that it may read, beside the system, Python and this program.
            hidden: what it may not see, though it lies in one of them.
            info: a file descriptor that is told the id of the sandbox's first process.
        """
        places = _outermost([*_python(), *readable])
        words = ["bwrap", *self.kind, *_APART, "--die-with-parent", "--cap-drop", "ALL"]
        words += ["--info-fd", str(info)] if info is not None else []
        for place in _SYSTEM:
            if os.path.islink(place):
                words += ["--symlink", os.readlink(place), place]
            elif os.path.isdir(place):
                words += ["--ro-bind", place, place]
        for name in _OF_ETC:
            words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        words += ["--proc", "/proc", "--dev", "/dev", "--size", str(_SHARED_MEMORY), "--tmpfs", "/dev/shm"]
        words += [*_devices(), "--bind", str(folder / "tmp"), "/tmp"]  # before what may lie in it
        for place in places:
            words += ["--ro-bind", place, place]
        shown = [*places, *(place for place in _SYSTEM if not os.path.islink(place))]
        for place in _masked(hidden, shown, needed=places):
            words += ["--tmpfs", place] if os.path.isdir(place) else ["--ro-bind", "/dev/null", place]
        words += ["--bind", str(folder), HOME, "--chdir", HOME]
        words += ["--remount-ro", "/dev", "--remount-ro", "/"]
        return [*words, "--", *command]


@cache
def find_sandbox() -> Sandbox:
    """The strictest sandbox that works here, found by trying. Raises ``SandboxError`` that says why there is none."""
    if sys.platform != "linux":
        raise SandboxError(f"bubblewrap is for Linux, and this is {sys.platform}")
    if shutil.which("bwrap") is None:
        raise SandboxError("bwrap is not installed (Debian, Ubuntu: apt-get install bubblewrap)")
    said = ""
    for kind in _KINDS:
        with tempfile.TemporaryDirectory(prefix="compressor-probe-") as name:
            folder = Path(name)
            (folder / "tmp").mkdir()
            command = Sandbox(kind).command(folder, [sys.executable, "-I", "-S", "-c", "open('there', 'w').close()"])
            try:
                done = subprocess.run(
                    command, capture_output=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin"}
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
                continue
            if done.returncode == 0 and (folder / "there").exists():
                return Sandbox(kind)
            said = said or " ".join(done.stderr.decode(errors="replace").split())[-300:]
    raise SandboxError(f"bwrap does not work here ({said})")


def _python() -> list[str]:
    """What Python and this program need to be read."""
    found = [sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve().parent.parent)]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    for name in _PACKAGES:  # of a checkout its packages, and nothing else that lies there
        spec = importlib.util.find_spec(name)
        found += list(spec.submodule_search_locations or ()) if spec is not None else []
    return [place for place in found if os.path.isdir(place)]


def _devices() -> list[str]:
    """GPUs of the machine, where it has some."""
    found = [str(path) for pattern in _DEVICES for path in sorted(Path("/dev").glob(pattern))]
    words = [word for place in found for word in ("--dev-bind-try", place, place)]
    return [*words, "--ro-bind-try", "/sys", "/sys"] if found else ["--ro-bind-try", *["/sys/devices/system/cpu"] * 2]


def _outermost(places: Iterable[str]) -> list[str]:
    """Places without those inside of others, and without what the system's folders hold anyway."""
    found: list[str] = []
    for place in sorted({os.path.abspath(place) for place in places if os.path.exists(place)}, key=len):
        if not any(_inside(place, other) for other in (*found, *_SYSTEM)):
            found.append(place)
    return found


def _masked(hidden: Iterable[Path], shown: Sequence[str], needed: Sequence[str]) -> list[str]:
    """What is to be covered: it lies in something that is shown, and holds nothing of it that is needed."""
    found = []
    for path in hidden:
        for place in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
            visible = os.path.exists(place) and any(_inside(place, other) for other in shown)
            if visible and not any(_inside(other, place) for other in needed):
                found.append(place)
    return sorted(set(found), key=len)


def _inside(place: str, other: str) -> bool:
    return place == other or place.startswith(other.rstrip("/") + "/")
