"""How long somebody stays logged in, whatever the wall clock does meanwhile."""

from __future__ import annotations

import pytest

from compressor.service.access.principals import Principal
from compressor.service.access.sessions import LIFETIME, Sessions
from compressor.service.services import Services
from tests.service.clocks import FakeClock

HOUR = 3600.0
ANN = Principal("user:ann", frozenset({"read"}), "default", "key")


@pytest.fixture
def sessions(services: Services, clock: FakeClock) -> Sessions:
    return Sessions(services.database, clock)


def test_a_session_lasts_for_its_time(sessions: Sessions, clock: FakeClock) -> None:
    cookie = sessions.open(ANN)
    clock.advance(LIFETIME.total_seconds() - 60)
    assert sessions.check(cookie) is not None
    clock.advance(61)
    assert sessions.check(cookie) is None


@pytest.mark.parametrize("hours", [-24 * 365, -13, -1, 13, 24 * 365])
def test_no_jump_makes_a_session_last_for_longer(sessions: Sessions, clock: FakeClock, hours: float) -> None:
    cookie = sessions.open(ANN)
    clock.jump(hours * HOUR)
    assert sessions.check(cookie) is None, "it has to be opened again"
    again = sessions.open(ANN)
    assert sessions.check(again) is not None


@pytest.mark.parametrize("seconds", [-60, 60])
def test_clocks_may_differ_a_little(sessions: Sessions, clock: FakeClock, seconds: float) -> None:
    cookie = sessions.open(ANN)
    clock.jump(seconds)
    assert sessions.check(cookie) is not None
