"""PyTorch itself on the CPU, eager or from a ``.pt2`` file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilers.base import (
    Availability,
    Runner,
    RunnerInfo,
    Samples,
    WallClockRunner,
    default_threads,
    package_availability,
    require,
)
from profilers.errors import ProfilerUsageError, RefusedError
from profilers.machine import cpu_name

if TYPE_CHECKING:
    from torch import nn

    from exporters.base import Inputs
    from exporters.example import Example


class TorchCpu:
    """Times modules in eval mode under ``torch.inference_mode``."""

    name = "torch-cpu"

    def is_available(self) -> Availability:
        """torch comes with the default installation."""
        return package_availability("torch", package="torch", extra=None)

    def load(
        self,
        model: nn.Module | str | Path,
        example_inputs: Inputs | None = None,
        *,
        threads: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        channels_last: bool = False,
        **options: Any,
    ) -> Runner:
        """See :meth:`profilers.base.Runtime.load`. The module is copied; ``channels_last`` lays out the copy."""
        require(self)
        if options:
            raise ProfilerUsageError(f"{self.name} has no option {', '.join(sorted(options))}.")
        import torch

        from exporters.inputs import model_precision

        module, call = torch_module(model, example_inputs, torch.device("cpu"), batch, seed)
        if channels_last:
            layout = torch.channels_last
            module = module.to(memory_format=layout)
            call = call.with_tensors([v.to(memory_format=layout) if v.ndim == 4 else v for v in call.tensors])
        first = call.tensors[0]
        info = RunnerInfo(
            runtime=self.name,
            version=torch.__version__,
            device=cpu_name(),
            precision=model_precision(module),
            threads=threads or default_threads(),
            batch=first.shape[0] if first.ndim else 1,
        )
        return _TorchRunner(info, module, call)


_TIMING = threading.RLock()


class _TorchRunner(WallClockRunner):
    """Sets torch's thread count for as long as it runs: the setting is global, and others share the process."""

    def __init__(self, info: RunnerInfo, module: nn.Module, example: Example) -> None:
        import torch

        def call() -> object:
            with torch.inference_mode():
                return example.run(module)

        super().__init__(info, call)

    def run(self) -> None:
        self.measure(1)

    def measure(self, runs: int) -> Samples:
        import torch

        with _TIMING:
            before = torch.get_num_threads()
            torch.set_num_threads(self.info.threads)
            try:
                return super().measure(runs)
            finally:
                torch.set_num_threads(before)


def torch_module(
    model: nn.Module | str | Path,
    example_inputs: Inputs | None,
    device: Any,
    batch: int | None,
    seed: int,
) -> tuple[nn.Module, Example]:
    """A copy of ``model`` on ``device`` in eval mode, tried once, and a call of it with random inputs.

    Raises:
        ProfilerUsageError: a file that is no ``.pt2``, or example inputs are missing.
        RefusedError: the forward raises.
    """
    import copy

    import torch

    from exporters.example import Example, as_example
    from exporters.inputs import random_inputs

    if isinstance(model, (str, Path)):
        from exporters.formats.torch_export import load_program

        program = load_program(Path(model))
        module: nn.Module = program.module()
        own = program.example_inputs
        example = as_example(example_inputs if example_inputs is not None else Example(own[0], own[1]))
        module = module.to(device)
    else:
        if example_inputs is None:
            raise ProfilerUsageError("A module needs example_inputs; pass a tensor or a tuple of tensors.")
        example = as_example(example_inputs)
        module = copy.deepcopy(model).to(device).eval()
    call = example.with_tensors(random_inputs(example.tensors, batch, seed=seed, device=device))
    try:
        with torch.inference_mode():
            call.run(module)
    except Exception as error:  # the user's forward may raise anything
        text, shapes = str(error).splitlines(), [tuple(v.shape) for v in call.tensors]
        raise RefusedError(f"{type(module).__name__} cannot run on {shapes}: {text[0] if text else error!r}") from error
    return module, call
