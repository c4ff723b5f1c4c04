"""The form of a new job over HTTP: jobs are queued, mistakes stay at their fields, files are stored once."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.errors import UnsupportedModelError
from compressor.report.wording import TIMES
from compressor.service.page import preview
from compressor.service.services import Services
from tests.service.page.checked import wrong_with
from tests.service.page.looking import HOSTILE, TOKEN, look
from tests.service.page.worked import Worked

SAID = {"model": "resnet20_cifar", "weights": "none", "budget.flops": "50", "budget.flops.unit": "%"}


def arrays() -> bytes:
    stream = io.BytesIO()
    x, y = np.zeros((8, 1, 8, 8), np.float32), np.arange(8) % 2
    np.savez(stream, x_train=x, y_train=y, x_test=x, y_test=y)
    return stream.getvalue()


def send(client: TestClient, files: Any = None, place: str = "/jobs/new", **said: Any) -> Any:
    form = client.get("/jobs/new").text
    token, once = TOKEN.search(form), re.search(r'name="once" value="(\w+)"', form)
    assert token is not None
    assert once is not None
    data = {"csrf_token": token[1], "once": once[1], **{name.replace("__", "."): text for name, text in said.items()}}
    # Browsers send forms with files as multipart, the token first.
    return client.post(place, data=data, files=files or {"data_file": ("", b"")})


def made(answer: Any, parts: Services) -> Any:
    assert answer.status_code == 303, re.findall(r'class="wrong"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return parts.jobs.get(answer.headers["location"].rpartition("/")[2])


def mistakes(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422
    assert wrong_with(answer.text) == []
    found = re.findall(r'id="wrong-([^"]+)"><span[^>]*>.</span> (.*?)</p>', answer.text, re.DOTALL)
    return dict(found)


def test_a_job_is_queued(client: TestClient, parts: Services) -> None:
    job = made(send(client, **SAID, name="mine", priority="3", seed="5"), parts)
    assert (job.name, job.priority, job.state, job.kind) == ("mine", 3, "queued", "compress")
    assert job.recipe["budgets"] == {"flops": "50%"}
    assert (job.recipe["model"], job.recipe["weights"], job.recipe["seed"]) == ("resnet20_cifar", "none", 5)
    assert "resnet20_cifar" in job.recipe_text


def test_several_amounts_are_a_sweep(client: TestClient, parts: Services) -> None:
    job = made(send(client, **{**SAID, "budget.flops": "25, 50"}, data="digits"), parts)
    assert job.kind == "sweep"
    assert job.recipe["budgets"] == {"flops": ["25%", "50%"]}


def test_a_form_that_is_sent_twice_is_one_job(client: TestClient, parts: Services) -> None:
    form = client.get("/jobs/new").text
    token, once = TOKEN.search(form), re.search(r'name="once" value="(\w+)"', form)
    assert token is not None
    assert once is not None
    data = {"csrf_token": token[1], "once": once[1], **SAID}
    places = {client.post("/jobs/new", data=data).headers["location"] for _ in range(2)}
    assert len(places) == 1
    assert len(parts.jobs.list()) == 1


def test_mistakes_stand_at_their_fields_and_what_was_typed_stays(client: TestClient, parts: Services) -> None:
    answer = send(
        client,
        **{**SAID, "model": "resnet21", "budget.flops": "a lot"},
        lr="fast",
        name=HOSTILE,
        figs__lr="0.25",
        include="layer1*",
    )
    found = mistakes(answer)
    assert set(found) == {"lr", "budget.flops"}
    assert "must be" in found["lr"]
    for typed in ('value="resnet21"', 'value="a lot"', 'value="fast"', 'value="0.25"', "layer1*</textarea>"):
        assert typed in answer.text
    assert HOSTILE not in answer.text
    assert '<details class="part" open>' in answer.text, "a mistake in a folded part is seen"
    assert parts.jobs.list() == []


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"model": "resnet21"}, "model"),
        ({"model": "/etc/passwd"}, "model"),
        ({"data": "/etc"}, "data"),
        ({"data": "upload:0000"}, "data"),
        ({"weights": "/etc/passwd"}, "weights"),
        ({"start": "/etc"}, "start"),
        ({"device": "cuda:7"}, "device"),
        ({"target": "jetson-9", "budget__latency": "50"}, "target"),
        ({"search": "fig"}, "search"),
        ({"project": "others"}, "project"),
    ],
)
def test_what_the_server_does_not_take_is_said_at_its_field(
    client: TestClient, parts: Services, said: dict[str, str], field: str
) -> None:
    answer = send(client, **{**SAID, **said})
    shown = set(mistakes(answer))
    assert field in shown or f'href="#f-{field}"' in answer.text
    assert parts.jobs.list() == []


def test_what_belongs_to_no_field_is_said_at_the_top(client: TestClient, parts: Services) -> None:
    answer = send(client, **SAID, finetune_epochs="3")
    assert answer.status_code == 422
    assert "there is no data to train on" in answer.text
    assert parts.jobs.list() == []


def test_a_file_of_data_is_stored_and_named(client: TestClient, parts: Services) -> None:
    answer = send(client, {"data_file": ("mine.npz", arrays())}, **SAID)
    job = made(answer, parts)
    (upload,) = parts.uploads.list()
    assert job.recipe["data"] == f"upload:{upload.id}"
    assert (upload.kind, upload.state, upload.name) == ("arrays", "done", "mine.npz")
    assert job.uploads == (upload.id,)


def test_a_file_stays_when_something_else_is_wrong(client: TestClient, parts: Services) -> None:
    answer = send(client, {"data_file": ("mine.npz", arrays())}, **SAID, lr="x")
    assert set(mistakes(answer)) == {"lr"}
    (upload,) = parts.uploads.list()
    assert f'value="upload:{upload.id}"' in answer.text


@pytest.mark.parametrize(
    ("control", "name", "content"),
    [
        ("data_file", "mine.npz", b"no arrays"),
        ("data_file", "mine.pt", b"x"),
        ("data_file", "mine.zip", b"PK no zip"),
        ("weights_file", "w.safetensors", b"\x80\x04 a pickle"),
        ("data_file", f"{HOSTILE}.npz", b"x"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    client: TestClient, parts: Services, control: str, name: str, content: bytes
) -> None:
    answer = send(client, {control: (name, content)}, **SAID)
    assert set(mistakes(answer)) == {control}
    assert HOSTILE not in answer.text
    assert parts.jobs.list() == []


def test_a_file_that_is_too_large_is_refused_early(client: TestClient, parts: Services) -> None:
    answer = send(client, {"data_file": ("mine.npz", b"0" * (3 << 20))}, **SAID)
    assert answer.status_code == 413
    assert parts.uploads.list() == []


def test_uploads_by_themselves(client: TestClient, parts: Services) -> None:
    answer = send(client, {"file": ("mine.npz", arrays())}, place="/uploads", kind="arrays")
    assert answer.status_code == 303
    (upload,) = parts.uploads.list()
    text = look(client, "/uploads")
    assert f"upload:{upload.id}" in text
    assert f'value="upload:{upload.id}"' in look(client, "/jobs/new"), "the form proposes it"
    assert send(client, {"file": ("x.npz", b"x")}, place="/uploads", kind="arrays").status_code == 422
    assert send(client, {"file": ("x.npz", b"x")}, place="/uploads", kind="code").status_code == 422
    assert send(client, place=f"/uploads/{upload.id}/delete").status_code == 303
    assert all(each.state != "done" for each in parts.uploads.list())


def test_a_job_can_be_changed_and_submitted_anew(client: TestClient, parts: Services, worked: Worked) -> None:
    job = worked.submit("old", {"seed": 7, "search": "oneshot", "oneshot": {"rounds": 9}, "include": ["layer1*"]})
    text = look(client, f"/jobs/new?from={job.id}")
    for said in ('value="resnet20_cifar"', 'value="50"', 'value="7"', 'value="9"', "layer1*</textarea>"):
        assert said in text


def test_the_form_proposes_what_there_is_here(client: TestClient) -> None:
    text = look(client, "/jobs/new")
    for name in ("resnet20_cifar", "flowers", "onnxruntime-cpu", "torch-export", "figs"):
        assert f'value="{name}"' in text
    assert "imagefolder:/data" not in text, "places of the server are nobody's business"


INSPECTED = {
    "model": "resnet20_cifar",
    "costs": {
        "flops": {"original": 4e7, "smallest": 4e6, "unit": "macs"},
        "params": {"original": 2e5, "smallest": 2e4, "unit": "params"},
    },
    "input_shape": [3, 32, 32],
    "fixed": [{"place": HOSTILE, "operator": "x", "reason": HOSTILE, "channels": 3}],
}


def test_cost_and_range_before_submitting(
    client: TestClient, app: FastAPI, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inspected(app: Any, written: Any, project: str) -> dict[str, Any]:
        assert written.values["model"] == "resnet20_cifar"
        return INSPECTED

    monkeypatch.setattr(preview, "inspected", inspected)
    # With scripts the part alone, without the whole form.
    part = send(client, place="/jobs/new/inspect", **SAID)
    assert part.status_code == 200
    for said in ("40.0 M", "4.00 M", "20.0 M", "reachable", f"3 {TIMES} 32 {TIMES} 32"):
        assert said in part.text
    assert wrong_with(part.text, whole=False) == []
    assert HOSTILE not in part.text
    assert "too small" in send(client, place="/jobs/new/inspect", **{**SAID, "budget.flops": "5"}).text
    whole = send(client, **SAID, do="inspect")
    assert whole.status_code == 200
    assert "40.0 M" in whole.text
    assert wrong_with(whole.text) == []
    assert 'value="resnet20_cifar"' in whole.text
    assert parts.jobs.list() == []


def test_a_model_that_cannot_be_looked_at(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def inspected(app: Any, written: Any, project: str) -> dict[str, Any]:
        raise UnsupportedModelError(f"No such thing: {HOSTILE}")

    monkeypatch.setattr(preview, "inspected", inspected)
    answer = send(client, place="/jobs/new/inspect", **SAID)
    assert "No such thing" in answer.text
    assert HOSTILE not in answer.text
    assert "Name a model" in send(client, place="/jobs/new/inspect").text
