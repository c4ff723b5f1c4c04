"""Options that say where work runs that goes side by side: in processes of this machine, or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.cli.options import Decorator, Of, stack
from compressor.errors import UsageError
from compressor.options import Number, Whole, read, shown

if TYPE_CHECKING:
    from compressor.jobs.executors.base import Executor
    from compressor.process.ray_cluster import RaySettings

_NAMES = ("executor", "ray_address", "ray_resources", "ray_processes")
_AMOUNT = Number(least=0.0, most=1e6)

executor_options: Decorator = stack(
    click.option(
        "--executor",
        type=click.Choice(["processes", "ray"]),
        default="processes",
        help="Where points, trials and subnets run side by side: in processes of this machine, or as tasks of Ray. "
        "[processes]",
    ),
    click.option(
        "--ray-address",
        metavar="A",
        help="The Ray cluster, host:6379 or auto. [RAY_ADDRESS, else a Ray of this machine's own]",
    ),
    click.option(
        "--ray-resources",
        metavar="R=N,...",
        help="What each task on Ray takes: CPU (its threads), GPU, and what nodes were started with. [CPU=1]",
    ),
    click.option(
        "--ray-processes",
        type=Of(Whole(1, 256)),
        metavar="N",
        help="Processes that train each point together, on one node; each has a GPU if points take any. [1]",
    ),
)


@dataclass(frozen=True)
class Where:
    """Where work runs that goes side by side. ``ray`` is None for processes of this machine; ``processes`` is how many
    do one point of a sweep together."""

    ray: RaySettings | None
    processes: int = 1

    @classmethod
    def taken(cls, options: dict[str, Any]) -> Where:
        """What the options say, taken out of ``options``. Raises ``UsageError``."""
        executor, address, resources, processes = (options.pop(name) for name in _NAMES)
        if executor != "ray":
            others = zip(_NAMES[1:], (address, resources, processes), strict=True)
            if (given := next((name for name, value in others if value), None)) is not None:
                raise UsageError(f"--{given.replace('_', '-')} is for --executor ray; add that, or leave it out.")
            return cls(None)
        from compressor.process.ray_cluster import RaySettings

        amounts = _amounts(resources or "")
        cpus, gpus = amounts.pop("CPU", 1.0), amounts.pop("GPU", 0.0)
        return cls(RaySettings(address, cpus, gpus, amounts), processes or 1)

    def executor(self, workers: int | None, targets: tuple[str | None, ...]) -> Callable[[Path], Executor] | None:
        """What makes the executor of a sweep, given a file in its folder; None leaves it to the sweep.

        Args:
            workers: most points at a time, where that was said.
            targets: where latencies are measured: by one point at a time.
        """
        settings = self.ray
        if settings is None:
            return None

        def make(shared: Path) -> Executor:
            from compressor.jobs.executors.ray import RayExecutor

            offers = {target: 1.0 for target in targets if target is not None}
            return RayExecutor(settings, workers=workers, processes=self.processes, offers=offers, shared=shared)

        return make

    @contextmanager
    def pools(self) -> Iterator[None]:
        """Inside, trials and subnets that go side by side run there."""
        if self.ray is None:
            yield
            return
        if self.processes > 1:
            raise UsageError(
                "--ray-processes is for the points of compress sweep; start one job in several processes with torchrun."
            )
        from compressor.process.ray_pool import on_ray

        with on_ray(self.ray):
            yield


def _amounts(text: str) -> dict[str, float]:
    """``CPU=2,GPU=1`` as numbers by name."""
    found: dict[str, float] = {}
    for part in (part.strip() for part in text.split(",")):
        name, equals, amount = part.partition("=")
        if not part:
            continue
        if not equals or not name.strip():
            raise UsageError(f"--ray-resources takes names and amounts, such as CPU=2,GPU=1, not {shown(part)}.")
        if name.strip() in found:
            raise UsageError(f"--ray-resources says {name.strip()} twice; keep one of them.")
        found[name.strip()] = float(read(f"--ray-resources {name.strip()}", _AMOUNT, amount.strip()))
    return found
