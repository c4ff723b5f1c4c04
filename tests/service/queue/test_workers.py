"""Workers are here while they are heard of, whatever the wall clock does."""

from __future__ import annotations

import pytest

from compressor.service.services import Services
from tests.service.clocks import FakeClock


def here(services: Services) -> list[str]:
    return [worker.name for worker in services.workers.list(within_seconds=120)]


@pytest.mark.parametrize("seconds", [-365 * 86400, -3600, 3600, 365 * 86400])
def test_who_is_silent_after_a_jump_is_not_here(services: Services, clock: FakeClock, seconds: float) -> None:
    for name in ("living", "dead"):
        services.workers.seen(name)
    assert here(services) == ["dead", "living"]
    clock.jump(seconds)
    clock.advance(15)
    services.workers.seen("living")
    assert here(services) == ["living"]


def test_who_is_silent_is_not_here(services: Services, clock: FakeClock) -> None:
    services.workers.seen("w")
    clock.advance(121)
    assert here(services) == []
