"""One task in several processes of this machine that train together, as ``torchrun`` starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from compressor import errors
from compressor.errors import CompressorError, ProcessLostError
from compressor.jobs.executors.base import JobTask
from compressor.process.environment import launched_rank
from compressor.process.failures import explain
from compressor.process.groups import kill_group
from compressor.storage.files import atomic_write_json

_TASK, _ANSWER = "task.json", "answer.json"
_LOOK_S = 1.0


def run_together(task: JobTask, processes: int, *, threads: int = 1) -> Any:
    """Run a task in every process of a group; returns what the first of them returns.

    Args:
        processes: how many, all on this machine.
        threads: of each.

    Raises:
        CompressorError: what the first raised, of its class if it is one of ``compressor.errors``.
        ProcessLostError: a process died.
    """
    with tempfile.TemporaryDirectory(prefix="compressor-") as folder:
        asked = {"function": task.function, "arguments": dict(task.arguments), "owner": os.getpid(), "path": sys.path}
        atomic_write_json(Path(folder) / _TASK, asked)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen(
            [*command, "-m", __name__, folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                _, said = process.communicate()
            except BaseException:
                kill_group(process.pid)
                raise
        return _answered(Path(folder) / _ANSWER, task, said)


def _answered(file: Path, task: JobTask, said: str) -> Any:
    if not file.exists():
        last = next((line.strip() for line in reversed(said.splitlines()) if "rror" in line), "no reason was given")
        raise ProcessLostError(f"A process of {task.name} ended before it was done ({last[:300]}); run it again.")
    answer = json.loads(file.read_text(encoding="utf-8"))
    if "error" not in answer:
        return answer["result"]
    kind = getattr(errors, answer["error"], CompressorError)
    raise kind(answer["text"])


def _main(folder: Path) -> int:
    """In each process: do the task, and tell the owner what came of it if this is the first."""
    asked = json.loads((folder / _TASK).read_text(encoding="utf-8"))
    threading.Thread(target=_end_with, args=(asked["owner"],), daemon=True).start()
    sys.path.extend(entry for entry in asked["path"] if entry not in sys.path)
    try:
        answer: dict[str, Any] = {"result": JobTask("", asked["function"], asked["arguments"]).run()}
    except BaseException as error:
        answer = {"error": type(error).__name__, "text": explain(error)[1]}
    if launched_rank() == 0:
        atomic_write_json(folder / _ANSWER, answer)
    return int("error" in answer)


def _end_with(owner: int) -> None:
    """End this process when the one that wanted it is gone, however it went."""
    while True:
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
