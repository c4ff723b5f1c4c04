"""Work in processes: results as they end, more work while they come, errors and deaths by name, and no orphans."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import torch

from compressor.errors import CompressorError, UsageError
from compressor.process.pool import NotHandedOver, Pool, side_by_side


def died(task: object) -> CompressorError:
    return CompressorError(f"{task} died")


def scaled(payload: dict[str, int], task: int) -> int:
    """Ends, refuses or kills its process, as the task says."""
    if task < 0:
        os._exit(3)
    if task == 13:
        raise UsageError("13 is none")
    return payload["times"] * task


def where(payload: Path, task: str) -> tuple[int, int]:
    """Says which process this is, and how many threads it has; ``sleep`` never ends."""
    (payload / task).write_text(str(os.getpid()))
    if task == "sleep":
        threading.Event().wait()
    return os.getpid(), torch.get_num_threads()


def test_results_come_as_they_end_and_more_work_meanwhile() -> None:
    found = {}
    with Pool(scaled, {"times": 3}, 2, died=died) as pool:
        for task in (1, 2, 3):
            pool.submit(task)
        for task, result in pool.results():
            found[task] = result
            if task == 3:
                pool.submit(10)
    assert found == {1: 3, 2: 6, 3: 9, 10: 30}


def test_errors_and_deaths_are_of_a_task() -> None:
    with pytest.raises(UsageError, match="13 is none"):
        side_by_side(scaled, {"times": 1}, [13], 2, lambda *_: None, died=died)
    with pytest.raises(CompressorError, match="-1 died"):
        side_by_side(scaled, {"times": 1}, [-1], 1, lambda *_: None, died=died)


def test_what_cannot_be_handed_over_is_told_before_any_work() -> None:
    with pytest.raises(NotHandedOver):
        Pool(scaled, {"times": lambda: 1}, 2, died=died)


def fails_meanwhile(folder: Path) -> None:
    with Pool(where, folder, 2, died=died) as pool:
        pool.submit("sleep")
        while not (folder / "sleep").exists() or not (folder / "sleep").read_text():
            time.sleep(0.05)
        raise ValueError("enough")


def test_an_error_outside_ends_what_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="enough"):
        fails_meanwhile(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "sleep").read_text()), 0)
