"""Names of devices: bound to a machine, answered for by one agent, here or away."""

from __future__ import annotations

import pytest

from compressor.service.devices.farm import Farm
from compressor.service.devices.registered import AnotherAgentError, Told
from compressor.service.errors import ConflictError, NotFoundError, RefusedError
from tests.service.clocks import FakeClock
from tests.service.devices.helpers import told


def test_a_device_is_known_from_its_first_registration_on(farm: Farm) -> None:
    assert farm.devices.list() == []
    with pytest.raises(NotFoundError, match="compress agent"):
        farm.devices.get("one")
    made = farm.devices.register("one", told())
    assert farm.devices.get("one") == made
    assert (made.here, made.runtime, made.threads, made.device.name) == (True, "simulated", 1, "one")
    assert farm.devices.labels() == {"device:one"}


def test_another_machine_under_the_same_name_is_refused_with_the_cure(farm: Farm, clock: FakeClock) -> None:
    farm.devices.register("jetson-1", told("one"))
    clock.advance(10_000)  # also when the first is long gone
    with pytest.raises(
        ConflictError, match=r"belongs to another machine, one; this one is two\. Choose another --name"
    ):
        farm.devices.register("jetson-1", told("two", "b"))
    farm.devices.remove("jetson-1")
    assert farm.devices.register("jetson-1", told("two", "b")).device.name == "two"


def test_one_agent_answers_for_a_name(farm: Farm, clock: FakeClock) -> None:
    farm.devices.register("one", told(agent="a"))
    with pytest.raises(AnotherAgentError, match="Another agent answers"):
        farm.devices.register("one", told(agent="b"))
    clock.advance(21)
    farm.devices.get("one")
    assert farm.devices.register("one", told(agent="b")).here
    farm.devices.leave("one", "b")
    assert not farm.devices.get("one").here
    assert farm.devices.register("one", told(agent="c")).here


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "", "A", "../x", "a b", "x" * 64, "-a"])
def test_names_that_no_device_can_have(name: str, farm: Farm) -> None:
    with pytest.raises(RefusedError, match="cannot be the name"):
        farm.devices.register(name, told())


@pytest.mark.parametrize("target", ["", "target/1 {}", "nonsense", 'target/1 {"device":[]}', "target/1 " + "[" * 2000])
def test_agents_that_do_not_say_what_they_measure_on(target: str, farm: Farm) -> None:
    with pytest.raises(RefusedError, match="what it measures on"):
        farm.devices.register("one", Told(target, "a"))


def test_a_device_that_is_silent_is_away_and_says_since_when(farm: Farm, clock: FakeClock) -> None:
    farm.devices.register("one", told())
    assert farm.devices.waiting_for({"device:one"}) is None
    clock.advance(19)
    assert farm.devices.get("one").here
    clock.advance(21)
    assert not farm.devices.get("one").here
    assert farm.devices.labels() == set()
    assert farm.devices.waiting_for({"device:one", "code"}) == "device one, last seen 40 s ago"
    assert farm.devices.waiting_for({"device:two"}) == "device two, never seen"
    assert farm.devices.waiting_for({"code"}) is None
    farm.devices.register("one", told())
    assert farm.devices.labels() == {"device:one"}


def test_a_clock_that_jumps_sends_nobody_away(farm: Farm, clock: FakeClock) -> None:
    farm.devices.register("one", told())
    assert farm.devices.get("one").here
    clock.jump(300)
    assert farm.devices.get("one").here
    clock.jump(-900)
    assert farm.devices.get("one").here


def test_a_server_that_was_just_started_does_not_take_old_devices_for_present(farm: Farm, clock: FakeClock) -> None:
    farm.devices.register("one", told())
    clock.advance(86_400)
    assert not Farm(farm.services).devices.get("one").here
