"""What a model costs before it is submitted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.service.errors import TooManyError
from compressor.service.inspecting import inspector as module
from compressor.service.inspecting.inspector import Inspector
from compressor.service.inspecting.processes import InspectionError, TooSlowError, inspect_apart
from compressor.service.recipes.policy import Submission
from compressor.service.worker.limits import Limits

RECIPE = {"model": "resnet20_cifar", "weights": "none", "num_classes": 10}


@pytest.mark.slow
def test_costs_and_the_smallest_that_can_be_reached() -> None:
    found = inspect_apart({**RECIPE, "search": "oneshot", "budgets": {"flops": "100%"}}, "compress")
    assert found["model"]
    for cost in ("flops", "params", "memory"):
        said = found["costs"][cost]
        assert 0 < said["smallest"] < said["original"]
        assert said["unit"]
    assert found["groups"]
    assert found["blocks"]
    assert found["counts"]["groups"] == len(found["groups"])
    with pytest.raises(InspectionError) as caught:
        inspect_apart({**RECIPE, "model": "no_such_model"}, "compress")
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_what_takes_too_long_is_killed() -> None:
    with pytest.raises(TooSlowError):
        inspect_apart(RECIPE, "compress", Limits(seconds=0.2))


class Counting:
    """Answers after it is let go, and counts."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.go = threading.Event()

    def __call__(self, recipe: Mapping[str, Any], kind: str) -> dict[str, Any]:
        self.asked.append(recipe)
        assert self.go.wait(20)
        return {"model": recipe["model"], "kind": kind}


def test_the_same_question_is_answered_once() -> None:
    look = Counting()

    async def scene() -> None:
        inspector = Inspector(look)
        asked = [
            Submission("compress", {**RECIPE, "budgets": {"flops": budget}, "train_epochs": n, "seed": n})
            for n, budget in enumerate(["30%", "40%", "50%"])
        ]
        tasks = [asyncio.create_task(inspector.inspect(each)) for each in asked]
        await asyncio.sleep(0.05)
        tasks[0].cancel()  # whoever goes away takes nothing from others
        look.go.set()
        answers = await asyncio.gather(*tasks[1:])
        assert answers[0] == answers[1] == await inspector.inspect(asked[0])
        assert (await inspector.inspect(Submission("compress", {**RECIPE, "include": ["a"]})))["kind"] == "compress"

    asyncio.run(scene())
    assert len(look.asked) == 2


def test_few_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 3)
    look = Counting()

    async def scene() -> None:
        inspector = Inspector(look)
        tasks = [asyncio.create_task(inspector.inspect(Submission("compress", {"model": f"m{n}"}))) for n in range(3)]
        await asyncio.sleep(0.1)
        assert len(look.asked) <= module.AT_ONCE
        with pytest.raises(TooManyError):
            await inspector.inspect(Submission("compress", {"model": "m9"}))
        look.go.set()
        await asyncio.gather(*tasks)

    asyncio.run(scene())


def test_over_http(app: FastAPI, client: TestClient) -> None:
    look = Counting()
    look.go.set()
    app.state.inspector = Inspector(look)
    assert client.post("/v1/inspect", json=RECIPE).json() == {"model": "resnet20_cifar", "kind": "compress"}
    answer = client.post("/v1/inspect", json={**RECIPE, "out": "/tmp"})
    assert (answer.status_code, answer.json()["key"]) == (422, "out")
    assert client.post("/v1/inspect", json={**RECIPE, "model": "os:system"}).status_code == 403
    assert client.post("/v1/inspect", json={}).json()["key"] == "model"
    assert len(look.asked) == 1


def test_a_failure_has_the_class_of_the_command_line(app: FastAPI, client: TestClient) -> None:
    def fails(recipe: Mapping[str, Any], kind: str) -> dict[str, Any]:
        raise InspectionError("The model cannot be traced.", 4)

    app.state.inspector = Inspector(fails)
    answer = client.post("/v1/inspect", json=RECIPE)
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 4)
    assert answer.json()["type"] == "urn:compressor:problem:unsupported"
