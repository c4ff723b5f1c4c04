"""Fetch a model's pretrained weights into the cache: ``python -m compressor.service.worker.fetching MODEL``."""

from __future__ import annotations

import sys

from compressor.errors import CompressorError
from compressor.models.base import WeightsUnavailableError
from compressor.models.loaded import resolve
from compressor.models.sources import SOURCES
from compressor.process.failures import explain

FETCHED_FROM = ("torchvision", "timm")


def main(spec: str) -> int:
    """Fetch; 0 if they are there now, or there are none to be had. Else the reason is printed."""
    try:
        source, name = resolve(spec)
        if source in FETCHED_FROM:
            SOURCES.get(source)().fetch(name)
    except WeightsUnavailableError as error:
        print(" ".join(str(error).split()))
        return 0 if "no pretrained weights" in str(error) else 1
    except CompressorError as error:
        code, text = explain(error)
        print(text)
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
