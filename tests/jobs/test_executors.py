"""Executors: independent tasks as data, results as they end, everything stopped on an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from compressor.errors import CompressorError, UsageError
from compressor.jobs.executors.base import Executor, JobTask
from compressor.jobs.executors.processes import ProcessExecutor
from compressor.jobs.executors.serial import SerialExecutor


def doubled(value: int) -> dict[str, int]:
    if value == 13:
        raise UsageError("13 is none")
    if value < 0:
        os._exit(3)
    return {"value": 2 * value}


def task(value: int, **more: Any) -> JobTask:
    return JobTask(f"task {value}", f"{__name__}:doubled", {"value": value, **more})


def alone(executor: Executor, job: JobTask) -> list[tuple[JobTask, Any]]:
    with executor:
        executor.submit(job)
        return list(executor.results())


EXECUTORS: list[Callable[[], Executor]] = [SerialExecutor, lambda: ProcessExecutor(2)]


@pytest.mark.parametrize("make", EXECUTORS)
def test_results_come_and_more_is_submitted_meanwhile(make: Callable[[], Executor]) -> None:
    found = {}
    with make() as executor:
        for value in (1, 2):
            executor.submit(task(value))
        for done, result in executor.results():
            found[done.name] = result["value"]
            if done.name == "task 1":
                executor.submit(task(5))
    assert found == {"task 1": 2, "task 2": 4, "task 5": 10}


@pytest.mark.parametrize("make", EXECUTORS)
def test_errors_are_those_of_the_task(make: Callable[[], Executor]) -> None:
    with pytest.raises(UsageError, match="13 is none"):
        alone(make(), task(13))


def test_a_process_that_dies_is_named() -> None:
    with pytest.raises(CompressorError, match="The process of task -1 died"):
        alone(ProcessExecutor(2), task(-1))


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no_such"):
        JobTask("a", "tests.jobs.test_executors:no_such").run()
