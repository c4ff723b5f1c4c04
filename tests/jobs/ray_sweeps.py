"""A sweep of eight points, and what it left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from compressor.cli.sweep import sweep_config
from compressor.jobs.sweeps.config import SweepConfig

EIGHT = {
    "model": "job_networks:plain",
    "weights": "none",
    "data": "digits",
    "search": "oneshot",
    "train_epochs": 1,
    "finetune_epochs": 1,
    "export": (),
    "budgets": ["flops=20%,30%,40%,50%,60%,70%,80%,90%"],
    "cold": True,
}


def sweep_to(out: Path, **more: Any) -> SweepConfig:
    return sweep_config({**EIGHT, **more, "out": str(out)})


def outcome(out: Path) -> Any:
    """Every point, and the bits of its network."""
    front = json.loads((out / "front.json").read_text())
    assert front["finished"]
    rows = [{k: v for k, v in point.items() if k != "seconds"} for point in front["points"]]
    return rows, [(out / row["name"] / "model.safetensors").read_bytes() for row in rows]


def steps(folder: Path) -> dict[str, Counter[int]]:
    """How often each step of each stage was done, as the job's own journal has it."""
    found: dict[str, Counter[int]] = {}
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "Step":
            found.setdefault(event["stage"], Counter())[event["done"]] += 1
    return found
