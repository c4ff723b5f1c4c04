"""``python -m compressor.service.artefacts.contents KIND FILE UNPACKED``: prints ``{"reason": null}``, or why not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from compressor.errors import CompressorError
from compressor.service.artefacts.contents.arrays import check_arrays
from compressor.service.artefacts.contents.images import check_images
from compressor.service.artefacts.contents.weights import check_weights

CHECKS: dict[str, Callable[[Path, int], None]] = {
    "weights": check_weights,
    "arrays": check_arrays,
    "images": check_images,
}
_MEMORY, _SECONDS = 3 << 30, 880


def limit(mapped: int) -> None:
    """No more memory than a check takes, beside a file that is mapped; no writing; an end."""
    if os.name != "posix":
        return
    import resource

    for what, most in (
        (resource.RLIMIT_AS, _MEMORY + mapped),
        (resource.RLIMIT_CPU, _SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # the system allows less already
            resource.setrlimit(what, (most, most))


def main(kind: str, file: str, unpacked: str) -> None:
    """Check one file."""
    path = Path(file)
    limit(path.stat().st_size)
    reason = None
    try:
        CHECKS[kind](path, int(unpacked))
    except CompressorError as error:
        # The file has another name to whoever sent it.
        reason = str(error).replace(f"'{path}'", "the file").replace(str(path), "the file")
    print(json.dumps({"reason": reason}))


if __name__ == "__main__":
    main(*sys.argv[1:])
