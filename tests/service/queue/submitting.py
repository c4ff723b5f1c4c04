"""Jobs as tests submit them."""

from __future__ import annotations

from typing import Any

from compressor.service.records import Claim, JobRecord, NewJob
from compressor.service.services import Services

RECIPE = {"model": "resnet20_cifar", "data": "digits", "budgets": {"flops": "30%"}}


def submit(services: Services, **values: Any) -> JobRecord:
    return services.jobs.submit(NewJob(**{"project": "default", "recipe": RECIPE, "recipe_text": "text", **values}))


def claim(services: Services, worker: str = "w1", labels: tuple[str, ...] = ()) -> Claim:
    found = services.leases.claim(worker, labels, "1")
    assert found is not None
    return found


def silence(services: Services, clock: Any, seconds: float) -> list[JobRecord]:
    """All workers are silent for a while; jobs that were taken from them."""
    services.leases.expire()
    clock.advance(seconds)
    return services.leases.expire()
