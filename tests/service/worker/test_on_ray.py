"""Workers as tasks of Ray: jobs are done, and those of a worker that is stopped are given back."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from compressor.process.ray_cluster import RayCluster, RaySettings
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.limits import Limits
from compressor.service.worker.on_ray import from_json, run_on_ray, to_json, work
from tests.service.worker.fake_server import FakeServer

Made = Callable[..., WorkerConfig]


def test_a_configuration_travels_as_json(config: Made) -> None:
    made = config(labels=("gpu",), limits={"seconds": 5.0}, datasets={"c": "cifar10:/data"})
    found = from_json(json.loads(json.dumps(to_json(made))))
    assert found == made
    assert found.limits == Limits(seconds=5.0)


def test_a_worker_does_as_many_jobs_as_it_is_told(config: Made, server: FakeServer) -> None:
    for name in ("a", "b"):
        server.submit(name, {"steps": [["write", "x", 10]]})
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert work(to_json(config(sandbox=False, code="unsandboxed")), jobs=2) == 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with RayCluster(cpus=2):
        yield


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers look into /proc")
@pytest.mark.usefixtures("two_cores")
def test_workers_on_ray_do_jobs_and_give_back_what_they_do_not_end(
    config: Made, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = config(sandbox=False, code="unsandboxed")
    jobs = [server.submit(name, {"steps": [["stage", "search"], ["write", "x", 10]]}) for name in ("a", "b", "c", "d")]
    assert run_on_ray(own, 2, RaySettings(), jobs=2) == 4
    assert [job.state for job in jobs] == ["done"] * 4
    assert all("x" in job.files for job in jobs)

    long = server.submit("long", {"steps": [["stage", "search"], ["steps", 10_000, 0.1]]})

    def interrupt(*_: Any) -> Any:
        server.wait(lambda: "StageEnded" in long.kinds)
        raise KeyboardInterrupt

    monkeypatch.setattr("compressor.process.ray_pool.RayPool.results", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_on_ray(own, 1, RaySettings())
    assert long.state == "queued"
    assert long.token is None, "given back, not left to its lease"
