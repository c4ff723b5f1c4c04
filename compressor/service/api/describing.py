"""How routes tell OpenAPI of their bodies and answers: schemas, and examples with all that is in them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Path
from pydantic import BaseModel

from compressor.service.api import examples
from compressor.service.api.answer_schemas import Problem
from compressor.service.api.problems import problem_type

Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", examples=[examples.SHA])]
"""A parameter of a path: the hash of a content."""
_NULL = "\0null"
"""Stands for null in examples, since FastAPI leaves out whatever is null in a description."""
_SAID = {
    401: "No key, or one that does not hold.",
    403: "The key may not do this.",
    404: "There is none, or it is another project's.",
    409: "It does not fit the state that things are in; for workers: the lease is no longer theirs.",
    412: "The file is not the one that `If-Match` names.",
    413: "Too many bytes; refused before they are read.",
    416: "The file has no such range.",
    422: "It cannot be used: which key, in which line, and what to do.",
    429: "The queue is full.",
    503: "The database or the artefacts are away; try again.",
    504: "It took too long.",
    507: "The disk is full, or the project has stored as much as it may.",
}


class DescribedApp(FastAPI):
    """An app whose description has the nulls of its examples."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; the same one again once it is made."""
        document = super().openapi()
        _restore_nulls(document)
        return document


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an endpoint answers beside its result, for OpenAPI: problem documents."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({401, 403, 422, 503, *statuses}):
        said = HTTPStatus(status)
        example: dict[str, Any] = {
            "type": problem_type(said),
            "title": said.phrase,
            "status": status,
            "detail": _SAID[status],
        }
        content = {"schema": inlined(Problem), "example": examples.PROBLEM if status == 422 else example}
        found[status] = {"description": _SAID[status], "content": {"application/problem+json": content}}
    return found


def body(example: Any, schema: type[BaseModel] | None = None) -> dict[str, Any]:
    """A request's JSON body, for OpenAPI; without a ``schema`` it is any object."""
    return _body("application/json", inlined(schema) if schema is not None else {"type": "object"}, example)


def binary(media_type: str) -> dict[str, Any]:
    """A request's body of bytes, for OpenAPI."""
    return _body(media_type, {"type": "string", "format": "binary"}, "...")


def _body(media_type: str, schema: Mapping[str, Any], example: Any) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": schema, "example": _without_nulls(example)}},
        }
    }


def answer(
    status: int, said: str, example: Any, model: type[BaseModel] | None = None
) -> dict[int | str, dict[str, Any]]:
    """A JSON result with an example; ``model`` describes it where the route's own ``response_model`` does not."""
    content = {"application/json": {"example": _without_nulls(example)}}
    return {status: {"description": said, "content": content, **({"model": model} if model is not None else {})}}


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a model, complete in itself: bodies that routes read themselves are no components."""
    schema = model.model_json_schema()
    inner = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if (name := str(value.get("$ref", "")).removeprefix("#/$defs/")) in inner:
                return resolved(inner[name])
            return {key: resolved(each) for key, each in value.items()}
        return [resolved(each) for each in value] if isinstance(value, list) else value

    found: dict[str, Any] = resolved(schema)
    return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return _NULL if value is None else value


def _restore_nulls(value: Any) -> None:
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(each, (dict, list)):
            _restore_nulls(each)
        elif each == _NULL:
            value[key] = None
