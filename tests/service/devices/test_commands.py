"""Measurements under way: in turns, one at a time, never twice, never lost."""

from __future__ import annotations

import pytest

from compressor.service.devices import protocol
from compressor.service.devices.farm import Farm
from compressor.service.devices.files import files_in_use
from compressor.service.errors import ConflictError, NotFoundError, RefusedError, StaleLeaseError
from profilers.errors import DeviceLostError
from tests.service.clocks import FakeClock
from tests.service.devices.helpers import Asking, answer, job, measured, measuring, pair, take, told


@pytest.fixture
def here(farm: Farm) -> Farm:
    """A device called one is here."""
    farm.devices.register("one", told())
    return farm


def test_an_answer_comes_back_to_who_asked(here: Farm) -> None:
    asking = Asking(here)
    assert not asking.ask("1").done
    leased = take(here)
    assert leased.request["operation"] == protocol.MEASURE
    assert here.commands.next("one", "a") is not None  # an agent that asks again has lost it: it gets it again
    leased = take(here)
    assert here.devices.get("one").job_id == asking.job
    here.commands.finish("one", leased.id, leased.lease, measured(3.0))
    state = asking.ask("1")
    assert state.done
    assert state.answer is not None
    assert state.answer["result"]["median_ms"] == 3.0
    assert here.commands.next("one", "a") is None, "it is not measured twice"


def test_jobs_take_turns_and_measurements_never_overlap(here: Farm) -> None:
    first, second = Asking(here), Asking(here)
    for number in range(3):
        first.ask(f"{number}")
    for number in range(3):
        second.ask(f"{number}")
    served = []
    for _ in range(6):
        leased = take(here)
        served.append(here.devices.get("one").job_id)
        assert second.ask("0").waiting_for in (None, "device one, which is measuring")
        here.commands.finish("one", leased.id, leased.lease, measured())
    assert served == [first.job, second.job] * 3
    assert here.commands.next("one", "a") is None


def test_two_sessions_of_one_job_have_one_turn(here: Farm) -> None:
    first, second = Asking(here), Asking(here)
    more, _ = here.open_session(first.job, first.token, "one")
    for number in range(2):
        first.ask(f"{number}")
        here.commands.ask(more, first.job, first.token, f"{number}", measuring())
        second.ask(f"{number}")
    served = []
    for _ in range(4):
        leased = take(here)
        served.append(here.devices.get("one").job_id)
        here.commands.finish("one", leased.id, leased.lease, measured())
    assert served == [first.job, second.job] * 2


def test_an_agent_that_vanishes_loses_nothing(here: Farm, clock: FakeClock) -> None:
    asking = Asking(here)
    asking.ask("1")
    old = take(here)
    clock.advance(25)
    state = asking.ask("1")
    assert not state.done
    assert state.waiting_for == "device one, last seen 25 s ago"
    clock.advance(6)
    assert not asking.ask("1").done
    clock.advance(40)
    asking.ask("1")  # taken back by now
    here.devices.register("one", told(agent="b"))
    new = take(here, agent="b")
    assert new.id == old.id
    assert new.lease != old.lease
    with pytest.raises(ConflictError, match="taken back"):
        here.commands.finish("one", old.id, old.lease, measured(9.0))
    assert here.commands.renew("one", old.id, old.lease)
    here.commands.finish("one", new.id, new.lease, measured(2.0))
    found = asking.ask("1").answer
    assert found is not None
    assert found["result"]["median_ms"] == 2.0


def test_an_agent_that_goes_on_keeps_its_measurement(here: Farm, clock: FakeClock) -> None:
    asking = Asking(here)
    asking.ask("1")
    leased = take(here)
    for _ in range(10):
        clock.advance(15)
        assert not here.commands.renew("one", leased.id, leased.lease)
        assert asking.ask("1").waiting_for == "device one, which is measuring" or not asking.ask("1").done
    here.commands.finish("one", leased.id, leased.lease, measured())
    assert asking.ask("1").done


def test_what_every_agent_dies_of_is_given_up_and_names_the_device(here: Farm) -> None:
    asking = Asking(here)
    asking.ask("1")
    for number in range(3):
        here.devices.leave("one", "a")
        here.devices.register("one", told())
        assert here.commands.next("one", "a") is not None, number
    assert here.commands.next("one", "a") is None
    state = asking.ask("1")
    assert state.answer is not None
    error = protocol.error_of(state.answer)
    assert isinstance(error, DeviceLostError)
    assert "device one vanished" in str(error)


def test_a_device_that_stays_away_ends_the_wait_and_is_named(here: Farm, clock: FakeClock) -> None:
    asking = Asking(here)
    asking.ask("1")
    clock.advance(30)
    assert not asking.ask("1").done
    clock.advance(1800)
    assert not asking.ask("1").done
    clock.jump(10_000)  # the wall clock says nothing of how long it was waited
    assert not asking.ask("1").done
    clock.advance(1801)
    found = asking.ask("1").answer
    assert found is not None
    error = protocol.error_of(found)
    assert isinstance(error, DeviceLostError)
    assert "The device one is away, last seen" in str(error)
    other = asking.ask("2")
    assert not other.done, "the wait for another begins anew"


def test_answers_of_sure_timings_serve_later_jobs(here: Farm) -> None:
    for margin, again in ((0.3, True), (0.01, False)):
        asking = Asking(here)
        asking.ask("1", pair())
        leased = take(here)
        result = {"original_ms": 2.0, "compressed_ms": 1.0, "ratio": 0.5, "margin": margin}
        here.commands.finish("one", leased.id, leased.lease, answer(result))
        later = Asking(here).ask("x", pair())
        assert later.done is not again
        if later.done:
            assert later.answer is not None
            assert later.answer["cached"]
            assert later.answer["result"] == result
    assert not Asking(here).ask("x", pair("another budget")).done
    here.devices.register("two", told("two", "b"))
    assert not Asking(here, "two").ask("x", pair()).done, "another device"


def test_what_a_job_asked_for_ends_with_its_lease(here: Farm) -> None:
    asking = Asking(here)
    asking.ask("1", pair())
    with here.services.database.begin(write=False) as session:
        assert files_in_use(session) == {"a" * 64, "b" * 64}
    leased = take(here)
    assert not here.commands.renew("one", leased.id, leased.lease)
    assert here.commands.may_fetch("one", "a" * 64)
    assert not here.commands.may_fetch("one", "c" * 64)
    here.services.leases.release(asking.job, asking.token)
    assert here.commands.renew("one", leased.id, leased.lease), "the agent is told to stop"
    with pytest.raises(StaleLeaseError):
        asking.ask("1", pair())
    assert here.commands.next("one", "a") is None
    with here.services.database.begin(write=False) as session:
        assert files_in_use(session) == set()


def test_sessions_that_are_closed_and_those_of_others(here: Farm) -> None:
    asking, other = Asking(here), job(here.services)
    with pytest.raises(NotFoundError):
        here.commands.ask(asking.session, *other, "1", measuring())
    with pytest.raises(StaleLeaseError):
        here.commands.ask(asking.session, asking.job, "wrong", "1", measuring())
    with pytest.raises(NotFoundError, match="no device 'none'"):
        here.open_session(asking.job, asking.token, "none")
    asking.ask("1")
    here.close_session(asking.session, asking.job, asking.token)
    assert here.commands.next("one", "a") is None
    with pytest.raises(NotFoundError):
        asking.ask("1")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"error": "x"},
        {"result": {}},
        {**measured(), "target": "nonsense"},
        {**measured(), "reference_ms": "x"},
        {**measured(), "result": {"median_ms": -1.0}},
        {**measured(), "result": {"median_ms": 1.0, "more": 2}},
    ],
)
def test_an_answer_that_is_none_is_refused_and_changes_nothing(wrong: dict[str, object], here: Farm) -> None:
    asking = Asking(here)
    asking.ask("1")
    leased = take(here)
    with pytest.raises(RefusedError):
        here.commands.finish("one", leased.id, leased.lease, wrong)
    assert not asking.ask("1").done
    assert here.table(here.devices.get("one")) == []
    here.commands.finish("one", leased.id, leased.lease, measured())
    assert asking.ask("1").done


def test_times_of_another_device_are_not_taken(here: Farm) -> None:
    Asking(here).ask("1")
    leased = take(here)
    with pytest.raises(ConflictError, match="times of another: two"):
        here.commands.finish("one", leased.id, leased.lease, measured(name="two"))
