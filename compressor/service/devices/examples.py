"""Examples of documents about devices, for the API's description."""

from __future__ import annotations

from typing import Any

_FINGERPRINT = 'device/1 {"cores":6,"features":["asimd","asimddp"],"kind":"cpu","name":"ARM Cortex-A78AE aarch64"}'
_TARGET = (
    'target/1 {"device":{"cores":6,"features":["asimd","asimddp"],"kind":"cpu","name":"ARM Cortex-A78AE aarch64"},'
    '"runtime":"onnxruntime-cpu","runtime_version":"1.22.0","threads":6}'
)
_SIGNATURE = 'signature/1 {"fused":["norm","relu"],"kernel":[3,3],"kind":"conv2d","padding":[1,1],"spatial":[56,56]}'

DEVICE: dict[str, Any] = {
    "name": "jetson-1",
    "label": "ARM Cortex-A78AE aarch64 (6 cores)",
    "kind": "cpu",
    "fingerprint": _FINGERPRINT,
    "runtime": "onnxruntime-cpu",
    "runtime_version": "1.22.0",
    "threads": 6,
    "version": "0.1.0",
    "registered_at": "2026-03-02T08:00:00+00:00",
    "seen_at": "2026-03-02T09:12:45+00:00",
    "here": True,
    "job": None,
    "queued": 0,
    "points": 412,
    "calibrations": 3,
}
DEVICES: dict[str, Any] = {"devices": [DEVICE]}
_COLUMNS = ["channels_in", "channels_out", "median_ms", "spread", "repeats", "status", "error", "measured_at"]
TABLE: dict[str, Any] = {
    "name": "jetson-1",
    "targets": [
        {
            "key": _TARGET,
            "label": "onnxruntime-cpu 1.22.0, fp32, threads 6, batch 1, ARM Cortex-A78AE aarch64 (6 cores)",
            "reference_ms": 0.21,
            "columns": _COLUMNS,
            "signatures": [
                {
                    "key": _SIGNATURE,
                    "label": "conv2d 3x3 @56x56 +norm+relu",
                    "points": [[64, 64, 1.93, 0.01, 16, "ok", "", "2026-03-02T09:12:45Z"]],
                }
            ],
            "calibrations": {},
        }
    ],
}
POLL: dict[str, Any] = {"target": _TARGET, "agent": "5f1c0a9be2", "version": "0.1.0", "wait_seconds": 10}
REQUEST: dict[str, Any] = {
    "operation": "measure",
    "threads": None,
    "batch": 1,
    "reference_ms": 0.21,
    "arguments": {"signature": _SIGNATURE, "channels_in": 64, "channels_out": 64},
    "files": [],
}
HELD: dict[str, Any] = {"command": "0197b2c3d4e5f60718a9", "lease": "9f86d081884c7d65"}
LEASED: dict[str, Any] = {"id": HELD["command"], "lease": HELD["lease"], "request": REQUEST}
_ANSWER: dict[str, Any] = {
    "result": {
        "median_ms": 1.93,
        "spread": 0.01,
        "repeats": 16,
        "status": "ok",
        "error": "",
        "measured_at": "2026-03-02T09:12:45Z",
    },
    "target": _TARGET,
    "reference_ms": 0.21,
    "recent_ms": 0.211,
}
MEASURED: dict[str, Any] = {**HELD, "answer": _ANSWER}
OPENING: dict[str, Any] = {"token": "5b0c1d", "name": "jetson-1"}
_COUNTED = ("points", "calibrations")
OPENED: dict[str, Any] = {
    "session": "0197b2c3d4e5f60718b0",
    "device": {name: value for name, value in DEVICE.items() if name not in _COUNTED},
}
ASKING: dict[str, Any] = {"token": "5b0c1d", "key": "1", "request": REQUEST, "wait_seconds": 10}
ASKED: dict[str, Any] = {"state": "waiting", "waiting_for": "device jetson-1, last seen 40 s ago"}
CLOSING: dict[str, Any] = {"token": "5b0c1d"}
CALIBRATIONS: dict[str, Any] = {
    **CLOSING,
    "target": _TARGET,
    "reference_ms": 0.21,
    "models": {
        "CifarResNet": {
            "coefficients": {"scale": 1.03, "overhead_ms": 0.2},
            "held_out": {"mean_error": 0.031, "kendall_tau": 0.97},
            "details": {},
            "measured_at": "2026-03-02T09:12:45Z",
        }
    },
}
