"""The contract suite of runtimes: subclass it and run pytest."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from profilers import registry
from profilers.base import Runner, Runtime
from profilers.errors import ProfilerUsageError, TargetUnavailableError


class RuntimeContract:
    """Set ``name``, under which the runtime is registered (the entry-point group ``compressor.profilers``)."""

    name: ClassVar[str]

    def test_it_keeps_what_a_runtime_promises(self) -> None:
        runtime = registry.get(self.name)
        assert isinstance(runtime, Runtime)
        assert runtime.name == self.name
        found = runtime.is_available()
        if not found:
            assert found.reason, "it says what is missing"
            _raises(TargetUnavailableError, lambda: runtime.load(network(), IMAGE))
            return
        runner = runtime.load(network(), IMAGE, threads=1, batch=3)
        assert isinstance(runner, Runner)
        assert runner.info.runtime == self.name
        assert runner.info.batch == 3
        assert runner.info.version
        runner.run()
        samples = runner.measure(4)
        assert len(samples.latency_ms) == 4
        assert all(value > 0 for value in samples.latency_ms)
        for extra in (samples.enqueue_ms, samples.compute_ms):
            assert len(extra) in (0, 4)
        runner.close()
        _raises(ProfilerUsageError, lambda: runtime.load(network()))


IMAGE = torch.zeros(1, 3, 8, 8)


def network() -> nn.Module:
    """Images (B, 3, 8, 8) to (B, 4)."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2)]
    return nn.Sequential(*body, *head).eval()


def _raises(kind: type[Exception], call: object) -> None:
    try:
        call()  # type: ignore[operator]
    except kind:
        return
    raise AssertionError(f"expected a {kind.__name__}")
