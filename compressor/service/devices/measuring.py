"""The process that measures: reads a request a line from stdin, writes an answer a line to stdout, until it is killed.

python -m compressor.service.devices.measuring '{"runtime": "onnxruntime-cpu", ...}'
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.service.devices import protocol
from compressor.service.devices.operations import Operations
from compressor.service.devices.protocol import Request
from lut import Target
from profilers import registry
from profilers.base import Runtime
from profilers.errors import ProfilerError

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Setup:
    """What the process is told.

    Attributes:
        memory_bytes: most private memory; ``None`` for no limit.
        slowdown, simulated: for tests, a factor on all times, and arguments of the simulated device.
    """

    runtime: str
    folder: str
    threads: int | None = None
    memory_bytes: int | None = None
    slowdown: float = 1.0
    simulated: dict[str, Any] | None = None

    def to_text(self) -> str:
        """JSON."""
        return json.dumps(asdict(self))

    def make(self) -> Runtime:
        """The runtime. Raises ``ProfilerError``."""
        if self.simulated is not None:
            from profilers.runtimes.simulated import SimulatedDevice

            return SimulatedDevice(**self.simulated)
        found = registry.get(self.runtime)
        if self.slowdown == 1.0:
            return found
        from compressor.service.devices.slowed import slowed

        return slowed(found, self.slowdown)

    def renamed(self, target: Target) -> Target:
        """A slowed device is another one."""
        if self.slowdown == 1.0:
            return target
        return replace(target, device=replace(target.device, name=f"{target.device.name} slowed {self.slowdown:g}x"))


def serve(setup: Setup) -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        runtime = setup.make()
        known = Operations(runtime, Path(setup.folder), threads=setup.threads, renamed=setup.renamed)
    except ProfilerError as error:
        known, failure = None, protocol.error_json(error)
    for line in sys.stdin:
        if known is None:
            answer = failure
        else:
            try:
                answer = known.answer(Request.from_json(json.loads(line)))
            except (CompressorError, OSError, MemoryError, RuntimeError) as error:
                answer = protocol.error_json(ProfilerError(f"{type(error).__name__}: {error}"))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _limit(memory_bytes: int | None) -> None:
    """End with whoever started this, and never take more memory than allowed."""
    with suppress(ImportError, OSError, AttributeError):  # not on Linux
        import ctypes

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, 9)
    if memory_bytes is not None:
        with suppress(ImportError, ValueError, OSError):
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def main() -> None:
    """See the module's documentation."""
    setup = Setup(**json.loads(sys.argv[1]))
    _limit(setup.memory_bytes)
    serve(setup)


if __name__ == "__main__":
    main()
