"""Runtimes that hang, crash or take all memory over some operators, for processes that measure with them.

Found by ``COMPRESSOR_RUNTIMES=tests.service.devices.odd_runtimes:find``.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from profilers.base import Runner
from profilers.runtimes.simulated import SimulatedDevice
from profilers.runtimes.simulated_work import onnx_work


class Odd(SimulatedDevice):
    """A simulated device to which something happens over products of 13 channels, and of 7 at all times after."""

    def __init__(self, what: str) -> None:
        super().__init__(device="odd")
        self.what = what

    def load(self, model: Any, example_inputs: Any = None, **how: Any) -> Runner:
        _, works = onnx_work(Path(model), example_inputs, how.get("batch"))
        mark = Path(os.environ["ODD_MARK"])
        if any(work.channels_in == 7 for work in works):
            mark.touch()
        if any(work.channels_in == 13 for work in works) or mark.exists():
            if self.what == "hangs":
                time.sleep(3600)
            elif self.what == "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif self.what == "ends":
                print("no more", file=os.sys.stderr)  # type: ignore[attr-defined]
                os._exit(3)
            elif self.what == "eats":
                held = [bytearray(64 << 20) for _ in range(200)]
                raise AssertionError(f"{len(held)} were not refused")
        return super().load(model, example_inputs, **how)


def find(name: str) -> Odd | None:
    """The runtime to which this happens."""
    return Odd(name) if name in ("hangs", "crashes", "ends", "eats") else None
