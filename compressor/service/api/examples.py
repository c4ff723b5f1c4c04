"""Examples of the API's documents, as its OpenAPI description and the documentation show them."""

from __future__ import annotations

from typing import Any

JOB_ID, UPLOAD_ID = "0197b2c3d4e5f60718a9", "0197b2c3d4e0a1b2c3d4"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

RECIPE: dict[str, Any] = {
    "model": "resnet20_cifar",
    "weights": "none",
    "data": "digits",
    "budgets": {"flops": "30%"},
    "train_epochs": 8,
    "export": ["onnx"],
}
SWEEP: dict[str, Any] = {"model": "resnet18", "budgets": {"flops": ["25%", "50%", "75%"]}}
RECIPE_YAML = "model: resnet20_cifar\nweights: none\ndata: digits\nbudgets: {flops: 30%}\ntrain_epochs: 8\n"

JOB: dict[str, Any] = {
    "id": JOB_ID,
    "project": "default",
    "name": "resnet20_cifar flops 30%",
    "kind": "compress",
    "state": "running",
    "priority": 0,
    "labels": [],
    "submitted_by": "local",
    "created_at": "2026-03-02T09:12:45.123Z",
    "started_at": "2026-03-02T09:12:46.001Z",
    "ended_at": None,
    "attempt": 1,
    "deaths": 0,
    "worker": "local-1",
    "cancel_requested": False,
    "stage": "search",
    "progress": {"stage": "search", "done": 120, "total": 420},
    "waiting_for": None,
    "error": None,
    "parent": None,
}
WHOLE_JOB: dict[str, Any] = {
    **JOB,
    "costs": {"flops": {"value": 12_160_000.0, "original": 40_550_000.0, "unit": "MACs"}},
    "files": 3,
    "recipe": RECIPE,
    "recipe_text": "",
    "uploads": [],
}
SUBMITTED: dict[str, Any] = {**WHOLE_JOB, "state": "queued", "started_at": None, "attempt": 0, "worker": None} | {
    "stage": None,
    "progress": None,
    "costs": None,
    "files": 0,
}
JOBS_EXAMPLE: dict[str, Any] = {"jobs": [JOB], "next": None}
EVENTS_EXAMPLE: dict[str, Any] = {
    "events": [
        {
            "id": 17,
            "event": "Step",
            "time": "2026-03-02T09:12:50.000Z",
            "attempt": 1,
            "stage": "search",
            "done": 120,
            "total": 420,
            "values": {"loss": 0.41},
        }
    ],
    "last": 17,
    "ended": False,
}
SSE_EXAMPLE = (
    'id: 17\nevent: Step\ndata: {"time":"2026-03-02T09:12:50.000Z","attempt":1,"stage":"search","done":120,'
    '"total":420,"values":{"loss":0.41}}\n\n'
)
FILES_EXAMPLE: dict[str, Any] = {"files": [{"path": "model.onnx", "sha256": SHA, "bytes": 103_211}]}
REPORT_EXAMPLE: dict[str, Any] = {"schema_version": 1, "name": "resnet20_cifar", "budgets": [], "costs": []}
PICK: dict[str, Any] = {"budgets": {"flops": "40%"}, "export": ["onnx"]}
UPLOAD_NEW: dict[str, Any] = {"name": "net.safetensors", "kind": "weights", "bytes": 1_048_576, "sha256": SHA}
UPLOAD: dict[str, Any] = {
    "id": UPLOAD_ID,
    "project": "default",
    "name": "net.safetensors",
    "kind": "weights",
    "bytes": 1_048_576,
    "offset": 0,
    "sha256": SHA,
    "state": "open",
    "created_at": "2026-03-02T09:12:45.123Z",
}
CLAIM: dict[str, Any] = {
    "job": {
        "id": JOB_ID,
        "kind": "compress",
        "recipe": RECIPE,
        "project": "default",
        "name": "resnet20_cifar flops 30%",
        "attempt": 1,
        "parent": None,
    },
    "token": "k1J8...",
    "lease_seconds": 30.0,
    "files": [],
    "uploads": [],
    "parent_files": [],
}
INSPECTED: dict[str, Any] = {
    "model": "CifarResNet",
    "input_shape": [3, 32, 32],
    "costs": {"flops": {"original": 40_550_000, "smallest": 310_000, "unit": "macs"}},
    "groups": [{"name": "layer1.0.conv1", "size": 16, "units": 16, "layers": ["layer1.0.conv1"]}],
    "blocks": [{"name": "layer1.0"}],
    "choices": [],
    "fixed": [{"place": "", "operator": "", "reason": "output of the network", "channels": 10}],
    "layers": [
        {"name": "conv1", "op": "conv", "macs": 442_368, "params": 432, "in_channels": 3, "out_channels": 16},
    ],
    "counts": {"groups": 14, "blocks": 7, "choices": 0, "fixed": 1, "layers": 20},
}
BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}, "example": "..."}
STORED: dict[str, Any] = {"sha256": SHA, "bytes": 103_211}
WORKERS: dict[str, Any] = {
    "workers": [
        {"name": "local-1", "labels": [], "version": "0.1.0", "seen_at": "2026-03-02T09:12:45.123Z", "job": JOB_ID}
    ]
}
AUDIT: dict[str, Any] = {
    "entries": [
        {
            "id": 8,
            "time": "2026-03-02T09:12:45.123456+00:00",
            "who": "ann",
            "action": "job.submit",
            "subject": JOB_ID,
            "project": "default",
            "details": {},
        }
    ]
}
PROBLEM: dict[str, Any] = {
    "type": "urn:compressor:problem:usage",
    "title": "The request cannot be used",
    "status": 422,
    "detail": "The recipe, line 3: flops: Cannot read '30' as a flops budget.",
    "exit_code": 2,
    "key": "budgets.flops",
    "line": 3,
}
