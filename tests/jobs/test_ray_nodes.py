"""A cluster of two nodes, of which one is lost in the middle of a sweep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compressor.jobs.executors.ray import RayExecutor
from compressor.jobs.sweeps.run import run_sweep
from compressor.pipeline.events import Event, Events, Message
from compressor.process.ray_cluster import RaySettings
from tests.jobs.ray_sweeps import outcome, steps, sweep_to

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")]


def test_a_node_that_is_killed_costs_its_points_their_current_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")
    alone, out = tmp_path / "alone", tmp_path / "out"
    run_sweep(sweep_to(alone), events=Events(), quiet=True)
    sequential = outcome(alone)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        done: list[str] = []

        def kill(event: Event) -> None:
            if isinstance(event, Message) and " is done (" in event.text:
                done.append(event.text)
                if len(done) == 2:
                    cluster.remove_node(other, allow_graceful=False)

        settings = RaySettings(address=cluster.address)
        run_sweep(sweep_to(out), events=Events(kill), make=lambda shared: RayExecutor(settings, shared=shared))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert outcome(out) == sequential
    again = [
        (row["name"], stage)
        for row in sequential[0]
        for stage, counts in steps(out / row["name"]).items()
        if max(counts.values()) > 1
    ]
    assert len(again) <= 1, "of the one point that ran there, one stage"
