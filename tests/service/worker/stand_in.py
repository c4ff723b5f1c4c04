"""What a child does in tests instead of a compression: imports nothing, and takes milliseconds.

``scripted`` does what the recipe's ``steps`` say. ``steady`` reads a recipe as a compression would, and makes files of
it in stages that a later attempt goes on from.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Tell = Callable[[Mapping[str, Any]], None]
RESULT = Path("result")
STAGES = ("load", "search", "finetune")


def scripted(job: Mapping[str, Any], tell: Tell) -> None:
    """``{"steps": [["stage", "search"], ["write", "a", 10], ...]}``."""
    for name, *arguments in job["recipe"]["steps"]:
        globals()[f"_{name}"](tell, *arguments)


def _stage(tell: Tell, name: str, seconds: float = 0.0) -> None:
    """A stage that an earlier attempt ended is not done again."""
    done = RESULT / ".job" / "stages" / f"{name}.json"
    if done.exists():
        tell({"event": "Message", "text": f"{name} was done"})
        return
    tell({"event": "StageBegan", "stage": name})
    time.sleep(seconds)
    done.parent.mkdir(parents=True, exist_ok=True)
    temporary = done.with_name(f".{name}.tmp")
    temporary.write_text(json.dumps({"stage": name}))
    temporary.rename(done)
    tell({"event": "StageEnded", "stage": name, "seconds": seconds})


def _steps(tell: Tell, total: int, seconds: float = 0.0) -> None:
    tell({"event": "TrainingBegan", "stage": "train", "done": 0, "total": total})
    for number in range(total):
        tell({"event": "Step", "stage": "train", "done": number + 1, "total": total, "values": {"loss": 1.0}})
        time.sleep(seconds)


def _write(tell: Tell, path: str, size: int) -> None:
    place = RESULT / path
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        for _ in range(0, size, 1 << 20):
            file.write(b"x" * min(1 << 20, size))


def _files(tell: Tell, count: int) -> None:
    for number in range(count):
        (RESULT / str(number)).touch()


def _link(tell: Tell, path: str, to: str) -> None:
    (RESULT / path).symlink_to(to)


def _say(tell: Tell, text: str, times: int = 1) -> None:
    for _ in range(times):
        print(text, flush=True)


def _sleep(tell: Tell, seconds: float) -> None:
    time.sleep(seconds)


def _eat(tell: Tell, size: int) -> None:
    """Take memory and hold it."""
    held = bytearray(size)
    for place in range(0, size, 4096):
        held[place] = 1
    time.sleep(60)


def _open(tell: Tell, count: int) -> None:
    files = [open("job.json") for _ in range(count)]  # noqa: SIM115
    del files


def _fork(tell: Tell, name: str) -> None:
    """A process with a session of its own, and one that this one began; both would stay for a minute."""
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '61']); time.sleep(61)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    tell({"event": "Message", "text": name})


def _fail(tell: Tell, kind: str, text: str) -> None:
    from compressor import errors

    raise {**vars(errors), "RuntimeError": RuntimeError, "SystemExit": SystemExit}[kind](text)


def _die(tell: Tell, signal: int) -> None:
    os.kill(os.getpid(), signal)
    time.sleep(10)


def _look(tell: Tell, code: str) -> None:
    """Tell what an expression gives, or the kind of its error."""
    try:
        found = eval(code, {"os": os, "Path": Path, "sys": sys})
    except Exception as error:
        found = type(error).__name__
    tell({"event": "Message", "text": repr(found)})


def _import(tell: Tell, name: str) -> None:
    import importlib

    tell({"event": "Message", "text": importlib.import_module(name).WORD})


def on_store(job: Mapping[str, Any], tell: Tell) -> None:
    """Says which weights it was given, and leaves a large file and a small one."""
    given = Path(job["recipe"]["weights"]).read_bytes()
    tell({"event": "StageBegan", "stage": "search"})
    (RESULT / "read.txt").write_text(hashlib.sha256(given).hexdigest())
    (RESULT / "model.bin").write_bytes(random.Random(1).randbytes(5 << 20))
    tell({"event": "StageEnded", "stage": "search", "seconds": 0.0})


def steady(job: Mapping[str, Any], tell: Tell) -> None:
    """Three stages; each makes a file of the recipe and of what the one before made."""
    text = json.dumps(job["recipe"], sort_keys=True)
    draw = random.Random(text)
    content = text
    stages = RESULT / ".job" / "stages"
    stages.mkdir(parents=True, exist_ok=True)
    tell({"event": "JobBegan", "name": "steady", "configuration": {}})
    for stage in STAGES:
        content = hashlib.sha256(f"{content} {stage}".encode()).hexdigest()
        seconds = draw.uniform(0.02, 0.2)
        place = stages / f"{stage}.json"
        if place.exists():
            assert place.read_text() == content, "a stage of another job"
            continue
        tell({"event": "StageBegan", "stage": stage})
        for number in range(4):
            time.sleep(seconds / 4)
            tell(
                {"event": "Step", "stage": stage, "done": number + 1, "total": 4, "values": {"loss": 1 / (number + 1)}}
            )
        temporary = stages / f".{stage}.tmp"
        temporary.write_text(content)
        temporary.rename(place)
        tell({"event": "StageEnded", "stage": stage, "seconds": seconds})
    tell({"event": "Decision", "costs": {"flops": 1.0}, "units": 1, "all_units": 2, "blocks": 0, "all_blocks": 0})
    (RESULT / "model.bin").write_bytes(content.encode() * 1000)
    (RESULT / "report.json").write_text(json.dumps({"made_of": text, "content": content}))
    tell({"event": "JobEnded", "status": "done"})


def mixed(job: Mapping[str, Any], tell: Tell) -> None:
    """A compression where the recipe's seed is a million or more, else ``steady``."""
    if job["recipe"].get("seed", 0) < 1_000_000:
        steady(job, tell)
        return
    from compressor.service.worker.work import run

    run(job, tell)
