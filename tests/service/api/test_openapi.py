"""The API's description: whole, with examples that are what their schemas say, and true of what is answered."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from compressor.service.api import examples

Made = Callable[..., dict[str, Any]]
_AS_JSON = {"Accept": "application/json"}
_JSON = ("application/json", "application/problem+json")


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def _contents(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Where each body and each answer is described, its media type, and what is said of it."""
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            place = f"{method.upper()} {path}"
            for media_type, content in said.get("requestBody", {}).get("content", {}).items():
                yield f"{place} body", media_type, content
            for status, answer in said["responses"].items():
                for media_type, content in answer.get("content", {}).items():
                    yield f"{place} {status}", media_type, content


def _examples(content: dict[str, Any]) -> list[Any]:
    more = [each["value"] for each in content.get("examples", {}).values()]
    return [*([content["example"]] if "example" in content else []), *more]


def _wrong(document: dict[str, Any], content: dict[str, Any], value: Any) -> list[str]:
    """What of a value is not as the schema says, whose references are into the document."""
    schema = {**content["schema"], "components": document.get("components", {})}
    return [f"{each.json_path}: {each.message}" for each in Draft202012Validator(schema).iter_errors(value)]


def _mistakes(document: dict[str, Any]) -> list[str]:
    found = []
    for place, media_type, content in _contents(document):
        if not _examples(content):
            found.append(f"{place} has no example")
        if not content.get("schema"):
            found.append(f"{place} has no schema")
        elif media_type in _JSON:
            found += [f"{place}: {each}" for one in _examples(content) for each in _wrong(document, content, one)]
    return found


def test_every_body_and_answer_has_examples_that_are_what_its_schema_says(document: dict[str, Any]) -> None:
    assert len(document["paths"]) > 30
    assert _mistakes(document) == []


def test_every_operation_says_what_it_does_takes_and_answers(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            place = f"{method} {path}"
            assert said.get("summary"), place
            assert said.get("description"), place
            assert method not in ("put", "patch") or "requestBody" in said, place
            good = {status: each for status, each in said["responses"].items() if status.startswith("2")}
            assert good, place
            assert all("content" in each for status, each in good.items() if status not in ("204", "206")), place


def test_every_operation_can_be_asked_as_its_examples_say(
    app: FastAPI, document: dict[str, Any], client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the examples name is not there; they are understood all the same, and answered as is described."""
    monkeypatch.setattr(app.state.names, "models", lambda: ["resnet20_cifar"])
    monkeypatch.setattr(app.state.inspector, "inspect", _inspected)
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            place, headers = path, {"Accept": "application/json"}
            for each in said.get("parameters", ()):
                example = next(iter(each["schema"].get("examples", ())), None)
                assert example is not None or not each["required"], f"{method} {path} {each['name']}"
                if each["in"] == "path":
                    place = place.replace(f"{{{each['name']}}}", example)
                elif each["in"] == "header" and example is not None:
                    headers[each["name"]] = example
            assert "{" not in place
            for media_type, content in said.get("requestBody", {"content": {"": {}}})["content"].items():
                for example in _examples(content) or [None]:
                    sent = example if isinstance(example, str) or example is None else json.dumps(_brief(example))
                    kind = {"Content-Type": media_type} if media_type else {}
                    answer = client.request(method, place, content=sent, headers={**headers, **kind})
                    assert str(answer.status_code) in said["responses"], f"{method} {place}: {answer.text}"
                    assert (answer.status_code < 500 and answer.status_code != 422) or media_type == _BYTES, answer.text
                    if answer.status_code >= 400:
                        described = said["responses"][str(answer.status_code)]["content"]["application/problem+json"]
                        assert answer.json()["type"] in (described["example"]["type"], "urn:compressor:problem:usage")


async def _inspected(*given: Any, **more: Any) -> dict[str, Any]:
    return examples.INSPECTED


_BYTES = "application/octet-stream"  # "..." has another hash


def _brief(example: Any) -> Any:
    """An example that waits for nothing."""
    return {**example, "wait_seconds": 0} if "wait_seconds" in example else example


@pytest.mark.parametrize("spoil", ["no example", "another type", "a key is missing", "no schema"])
def test_a_description_that_is_not_whole_is_found(document: dict[str, Any], spoil: str) -> None:
    spoilt = copy.deepcopy(document)
    body = spoilt["paths"]["/v1/work/{job_id}/snapshot"]["post"]["requestBody"]["content"]["application/json"]
    if spoil == "no example":
        del body["example"]
    elif spoil == "another type":
        body["example"]["files"][0]["bytes"] = "many"
    elif spoil == "a key is missing":
        del body["example"]["files"][0]["sha256"]
    else:
        del body["schema"]
    (mistake,) = _mistakes(spoilt)
    assert mistake.startswith("POST /v1/work/{job_id}/snapshot body")


def test_answers_are_what_the_description_says(
    document: dict[str, Any], client: TestClient, submit: Made, claim: Made
) -> None:
    upload = client.post("/v1/uploads", json=examples.UPLOAD_NEW)
    job = submit()
    held = claim()
    place, token = f"/v1/work/{held['job']['id']}", held["token"]
    event = {"number": 0, "time": "2026-03-02T09:12:46Z", "event": "Step", "body": {"stage": "search"}}
    asked: list[tuple[str, str, Any]] = [
        *(("GET", path, None) for path in ("/healthz", "/readyz", "/v1/jobs", "/v1/uploads", "/v1/workers")),
        *(("GET", path, None) for path in ("/v1/targets", "/v1/datasets", "/v1/devices", "/v1/audit")),
        *(("GET", f"/v1/jobs/{job['id']}{rest}", None) for rest in ("", "/files", "/events", "/report")),
        ("GET", f"/v1/uploads/{upload.json()['id']}", None),
        ("POST", f"{place}/renew", {"token": token}),
        ("POST", f"{place}/events", {"token": token, "events": [event]}),
        ("POST", f"{place}/snapshot", {"token": token, "files": []}),
        ("POST", f"{place}/device", {"token": token, "name": "nowhere"}),
        ("POST", f"{place}/end", {"token": token, "state": "done"}),
        ("POST", "/v1/jobs", {"model": 3}),
        ("POST", "/v1/work/claim", {"worker": "w", "strange": 1}),
        ("GET", "/v1/jobs?limit=many", None),
    ]
    answers = [
        (method, path, client.request(method, path, json=body, headers=_AS_JSON)) for method, path, body in asked
    ]
    for method, path, answer in [*answers, ("POST", "/v1/uploads", upload)]:
        said = _described(document, method, path)
        assert str(answer.status_code) in said, f"{method} {path} answers {answer.status_code}: {answer.text}"
        content = said[str(answer.status_code)]["content"][answer.headers["content-type"].partition(";")[0]]
        assert _wrong(document, content, answer.json()) == [], f"{method} {path}"
    claimed = _described(document, "POST", "/v1/work/claim")["200"]["content"]["application/json"]
    assert _wrong(document, claimed, held) == []


def _described(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    """What the description says of the answers of a path with its parameters filled in."""
    place = path.partition("?")[0]
    for template, methods in document["paths"].items():
        if method.lower() in methods and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), place):
            found: dict[str, Any] = methods[method.lower()]["responses"]
            return found
    raise AssertionError(f"{method} {path} is not described")
