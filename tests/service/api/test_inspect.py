"""What a model costs before it is submitted."""

from __future__ import annotations

import asyncio
import io
import threading
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from safetensors.torch import save
from starlette.testclient import TestClient

from compressor.service.errors import TooManyError
from compressor.service.inspecting import inspector as module
from compressor.service.inspecting.inspector import Inspector
from compressor.service.inspecting.processes import InspectionError, TooSlowError, _with_data, fetch_from, inspect_apart
from compressor.service.recipes.policy import Submission
from compressor.service.records import UploadRecord
from compressor.service.services import Services
from compressor.service.worker.limits import Limits
from compressor.service.worker.unpack import unpack_images

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
        inspect_apart(RECIPE, "compress", limits=Limits(seconds=0.2))


class Counting:
    """Answers after it is let go, and counts."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.uploads: list[str] = []
        self.go = threading.Event()

    def __call__(self, recipe: Mapping[str, Any], kind: str, uploads: Sequence[UploadRecord]) -> dict[str, Any]:
        self.asked.append(recipe)
        self.uploads += [each.id for each in uploads]
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
    def fails(recipe: Mapping[str, Any], kind: str, uploads: Sequence[UploadRecord]) -> dict[str, Any]:
        raise InspectionError("The model cannot be traced.", 4)

    app.state.inspector = Inspector(fails)
    answer = client.post("/v1/inspect", json=RECIPE)
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 4)
    assert answer.json()["type"] == "urn:compressor:problem:unsupported"


def _uploaded(parts: Services, content: bytes, kind: str, project: str = "default") -> UploadRecord:
    begun = parts.uploads.begin(project, "file", kind, len(content))
    parts.uploads.append(begun.id, 0, io.BytesIO(content))
    return parts.uploads.finish(begun.id)


def test_uploads_are_what_is_looked_at_and_must_be_there(app: FastAPI, client: TestClient, parts: Services) -> None:
    look = Counting()
    look.go.set()
    app.state.inspector = Inspector(look)
    weights = _uploaded(parts, save({"fc.weight": torch.zeros(2, 2)}), "weights")
    others = _uploaded(parts, save({"fc.weight": torch.ones(2, 2)}), "weights", project="other")
    recipe = {**RECIPE, "weights": f"upload:{weights.id}"}
    assert client.post("/v1/inspect", json=recipe).status_code == 200
    assert look.uploads == [weights.id]
    assert look.asked[0]["weights"] == f"upload:{weights.id}"
    for wrong in (
        {"weights": "upload:0000"},
        {"weights": f"upload:{others.id}"},  # another project's
        {"data": f"upload:{weights.id}"},  # of another kind
        {"start": "job:0000"},
    ):
        asked = {**RECIPE, "budgets": {"flops": "30%"}, **wrong}
        refused, submitted = (client.post(path, json=asked) for path in ("/v1/inspect", "/v1/jobs"))
        assert refused.status_code == 422
        assert refused.json() == submitted.json()
    assert len(look.asked) == 1


@pytest.mark.slow
def test_the_costs_are_those_of_the_uploaded_data_and_weights(parts: Services) -> None:
    x, y = np.zeros((14, 3, 16, 16), np.float32), np.arange(14) % 7
    stream = io.BytesIO()
    np.savez(stream, x_train=x, y_train=y, x_test=x, y_test=y)
    data = _uploaded(parts, stream.getvalue(), "arrays")
    wrong = _uploaded(parts, save({"strange.weight": torch.zeros(2, 2)}), "weights")
    recipe = {"model": "resnet20_cifar", "search": "oneshot", "data": f"upload:{data.id}", "budgets": {"flops": "100%"}}
    fetch = fetch_from(parts.blobs)
    found = inspect_apart(recipe, "compress", (data,), fetch=fetch)
    assert found["input_shape"] == [3, 16, 16]
    assert [each for each in found["layers"] if each["out_channels"] == 7], "the head has the classes of the data"
    with pytest.raises(InspectionError, match="strange"):
        inspect_apart({**recipe, "weights": f"upload:{wrong.id}"}, "compress", (data, wrong), fetch=fetch)


def test_registered_data_is_read_where_it_is_and_left_out_where_only_workers_have_it(tmp_path: Path) -> None:
    here, away = f"cifar10:{tmp_path}", f"cifar10:{tmp_path / 'nowhere'}"
    assert _with_data({"data": "mine"}, {"mine": here}) == ({"data": here}, [str(tmp_path)])
    assert _with_data({"data": "mine"}, {"mine": away}) == ({"search": "figs"}, [])
    assert _with_data({"data": "digits"}, {"mine": here}) == ({"data": "digits"}, [])


def test_of_images_some_of_each_folder_are_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in (f"train/{kind}/{number}.jpg" for kind in ("cat", "dog") for number in range(5)):
            file.writestr(name, b"1")
    assert unpack_images(tmp_path / "a.zip", tmp_path / "out", most_bytes=100, most_each=2) == 4
    assert sorted(path.parent.name for path in tmp_path.rglob("*.jpg")) == ["cat", "cat", "dog", "dog"]
