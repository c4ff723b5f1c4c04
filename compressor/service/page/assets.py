"""Static files: the page's own, those of others that are kept beside them, and the style sheet of reports.

All of them are read when the server starts and named with their checksum, so that browsers may keep them for good.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from compressor.report.page.style import CSS

FOLDER = Path(__file__).parent / "static"
SUMS = FOLDER / "vendor" / "SHA256SUMS"
"""Checksums of the files of others, as ``sha256sum --check`` takes them."""
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class Asset:
    """A file as it is sent."""

    content: bytes
    type: str
    sha256: str


@cache
def assets() -> dict[str, Asset]:
    """All files by their path below ``/static/``."""
    found = {"report.css": CSS.encode()}
    for file in sorted(FOLDER.rglob("*")):
        if file.is_file() and file.suffix in _TYPES:
            found[file.relative_to(FOLDER).as_posix()] = file.read_bytes()
    return {
        name: Asset(content, _TYPES[Path(name).suffix], hashlib.sha256(content).hexdigest())
        for name, content in found.items()
    }


def address(name: str) -> str:
    """Where a file is: its name with a part of its checksum. Raises ``KeyError`` if there is none."""
    return f"/static/{name}?v={assets()[name].sha256[:12]}"


def checksums() -> dict[str, str]:
    """What ``SHA256SUMS`` says, by path below ``static/vendor/``."""
    lines = [line.split(maxsplit=1) for line in SUMS.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {name.strip().lstrip("*"): digest for digest, name in lines}
