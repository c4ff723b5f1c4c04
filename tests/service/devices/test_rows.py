"""Tables of devices: points of any job, in one unit of time; the same rule as in ``LatencyTable``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.service.devices.farm import Farm
from compressor.service.errors import ConflictError, RefusedError
from lut import Calibration, LatencyTable, Measurement, Row
from profilers.layers.layer_timer import REFERENCE
from profilers.reference import SLOW
from tests.service.devices.helpers import CONV, Asking, measured, measuring, take, target, told


@pytest.fixture
def here(farm: Farm) -> Farm:
    farm.devices.register("one", told())
    return farm


def measure(farm: Farm, point: int, took: float, unit: float = 1.0, **more: Any) -> None:
    asking = Asking(farm)
    asking.ask(f"{point}", measuring(point, unit))
    leased = take(farm)
    farm.commands.finish("one", leased.id, leased.lease, measured(took, unit, **more))


def points(farm: Farm) -> dict[int, tuple[float | None, str]]:
    (found,) = farm.table(farm.devices.get("one"))
    (signature,) = found["signatures"]
    assert signature["key"] == CONV.key
    return {row[0]: (row[2], row[5]) for row in signature["points"]}


def test_rows_of_any_job_stand_in_the_table_of_the_device(here: Farm) -> None:
    measure(here, 8, 2.0)
    measure(here, 16, 4.0)
    (found,) = here.table(here.devices.get("one"))
    assert found["key"] == target().key
    assert found["reference_ms"] == 1.0
    assert points(here) == {8: (2.0, "ok"), 16: (4.0, "ok")}
    assert here.counts() == {target().device.fingerprint: {"points": 2, "calibrations": 0}}
    here.devices.register("two", told("two", "b"))
    assert here.table(here.devices.get("two")) == []
    here.devices.register("also-one", told("one", "c"))
    assert here.table(here.devices.get("also-one")) == [found], "the table is the machine's, not the name's"
    assert here.forget_measured("one") == 1
    assert here.table(here.devices.get("one")) == []


def test_a_good_point_is_replaced_by_a_good_one_only(here: Farm) -> None:
    measure(here, 8, 2.0)
    measure(here, 8, 3.0, status="noisy")
    assert points(here) == {8: (2.0, "ok")}
    measure(here, 8, 2.5)
    assert points(here) == {8: (2.5, "ok")}


@pytest.mark.parametrize(("now", "status"), [(0.9, "ok"), (0.5, "noisy")])
def test_a_device_that_turns_out_faster_scales_the_table_as_a_local_one_does(
    now: float, status: str, here: Farm, tmp_path: Path
) -> None:
    measure(here, 8, 2.0)
    assert here.keep_calibrations(here.devices.get("one"), target().key, 1.0, {"m": vars(calibration())}) == 1
    measure(here, 16, 4.0, now)
    with LatencyTable(tmp_path / "t") as table:
        anchor = Row(target(), REFERENCE, 32, 32, Measurement(1.0, repeats=1))
        table.anchor(anchor, slow=SLOW)
        table.put(target(), CONV, (8, 8), Measurement(2.0))
        table.anchor(anchor._replace(measurement=Measurement(now, repeats=1)), slow=SLOW)
        local = table.points(target(), CONV)[8, 8]
    assert points(here)[8] == (pytest.approx(local.median_ms), local.status)
    assert local.status == status
    assert points(here)[16] == (4.0, "ok")
    (found,) = here.table(here.devices.get("one"))
    assert found["reference_ms"] == now
    assert found["calibrations"] == {}


def test_a_job_in_an_older_unit_adds_its_points_in_the_present_one(here: Farm) -> None:
    measure(here, 8, 2.0, 1.0)
    measure(here, 16, 4.0, 1.05)
    assert points(here)[16] == (pytest.approx(4.0 / 1.05), "ok")


def calibration() -> Calibration:
    return Calibration({"scale": 1.0}, {"mean_error": 0.01}, {"measured_ms": {"original": 3.0}})


def test_calibrations_are_shared_if_they_are_of_this_device_and_unit(here: Farm) -> None:
    measure(here, 8, 2.0)
    record = here.devices.get("one")
    sent = {"resnet": vars(calibration())}
    assert here.keep_calibrations(record, target().key, 1.0, sent) == 1
    assert here.keep_calibrations(record, target().key, 1.2, {"other": vars(calibration())}) == 0
    (found,) = here.table(record)
    assert list(found["calibrations"]) == ["resnet"]
    assert Calibration(**found["calibrations"]["resnet"]) == calibration()
    with pytest.raises(ConflictError, match="not of device one"):
        here.keep_calibrations(record, target("two").key, 1.0, sent)
    with pytest.raises(RefusedError, match="cannot be used"):
        here.keep_calibrations(record, target().key, 1.0, {"x": {"coefficients": {"a": "b"}, "held_out": {}}})
    with pytest.raises(RefusedError):
        here.keep_calibrations(record, "nonsense", 1.0, sent)
