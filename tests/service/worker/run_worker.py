"""A worker as a process, for tests that kill it: ``run_worker.py SERVER KEY SCRATCH [JSON]``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.limits import Limits
from compressor.service.worker.loop import Worker

HERE = Path(__file__).parent


def main(server: str, key: str, scratch: str, more: str = "{}") -> None:
    told = json.loads(more)
    limits = Limits(**told.pop("limits", {}))
    usual = {"work": "stand_in:scripted", "code": "sandboxed", "warm": False, "wait_seconds": 0.5}
    own = {"python_path": (str(HERE), str(HERE.parents[2])), "limits": limits, "scratch": Path(scratch)}
    config = WorkerConfig(server=server, key=key or None, **{**usual, **own, **told})
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    worker = Worker(config)
    worker.stop_on_signals()
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
