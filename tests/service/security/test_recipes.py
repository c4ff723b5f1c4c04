"""Recipes name nothing of the server, and documents are bounded before they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.service.services import Services
from tests.service.security.scenes import RECIPE, UNPICKLED
from tests.service.strangers import Caller


@pytest.mark.parametrize(
    "more",
    [
        {"out": "/etc/cron.d/x"},
        {"force": True},
        {"lut": "/etc/passwd"},
        {"track": ["wandb"]},
        {"trust_factories": True},
        {"trust_factories": ["os:system"]},
        {"device": "cuda:0; rm -rf /"},
        {"data": "npz:/etc/passwd"},
        {"data": "imagefolder:/"},
        {"data": "hf:../../x"},
        {"data": "upload:../../etc/passwd"},
        {"weights": "/etc/passwd"},
        {"weights": "../../x.safetensors"},
        {"weights": "upload:x"},
        {"start": "/var/lib"},
        {"start": "job:../x"},
        {"model": "/etc/passwd"},
        {"model": "../model"},
        {"model": "hf:../../x"},
        {"model": "hf:https://evil.example/x"},
        {"model": 7},
        {"model": None},
        {"target": "no-such-device"},
        {"target": "../x"},
        {"export": ["../x"]},
        {"budgets": {"flops": "-5%"}},
        {"budgets": {}},
        {"budgets": {"__class__": "1"}},
        {"config": "/etc/passwd"},
        {"no_such_key": 1},
        {"name\x00": 1},
        {"finetune_epochs": 10**400},
        {"seed": "1; drop table jobs"},
    ],
)
def test_hostile_recipes_are_no_jobs(local: Caller, more: dict[str, Any]) -> None:
    answer = local.post("/v1/jobs", json={**RECIPE, **more})
    assert answer.status_code == 422, answer.text
    assert answer.json()["exit_code"] == 2
    assert local.get("/v1/jobs").json()["jobs"] == []


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", nested(100_000)),
        ("application/json", b'{"model": ' + nested(100_000) + b"}"),
        ("application/json", b'{"model": "resnet20_cifar", "model": "resnet18"}'),
        ("application/json", b'{"model": NaN}'),
        ("application/json", b'{"model": "\xff\xfe"}'),
        ("application/json", b"{"),
        ("application/json", b""),
        ("application/json", b"[]"),
        ("application/json", b'"' + b"x" * (8 << 20) + b'"'),
        (
            "application/yaml",
            b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c]",
        ),
        ("application/yaml", b"!!python/object/apply:os.system ['touch " + UNPICKLED.encode() + b"']"),
        ("application/yaml", b"model: !!python/name:os.system"),
        ("application/yaml", b"[" * 50_000),
        ("application/yaml", b"- " * 50_000),
        ("application/yaml", b"? " * 50_000),
        ("application/yaml", b"\x00"),
        ("application/yaml", b"x: " + b"x" * (8 << 20)),
        ("application/xml", b'<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]><x>&x;</x>'),
    ],
)
def test_hostile_documents_are_refused(local: Caller, kind: str, body: bytes) -> None:
    answer = local.post("/v1/jobs", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (400, 413, 415, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert local.get("/v1/jobs").json()["jobs"] == []
    assert not Path(UNPICKLED).exists()


def test_code_is_for_workers_that_opted_in(local: Caller, services: Services) -> None:
    answer = local.post("/v1/jobs", json={**RECIPE, "model": "os:system"})
    assert answer.status_code == 201
    assert services.leases.claim("shipped code alone") is None
    claim = services.leases.claim("opted in", {"code"})
    assert claim is not None
    assert claim.job.id == answer.json()["id"]
