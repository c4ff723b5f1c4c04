"""PyTorch itself on the CPU, eager or from a ``.pt2`` file."""

from __future__ import annotations

from collections.abc import Sequence
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
    from torch import Tensor, nn


class TorchCpu:
    """Times modules in eval mode under ``torch.inference_mode``."""

    name = "torch-cpu"

    def is_available(self) -> Availability:
        """torch comes with the default installation."""
        return package_availability("torch", package="torch", extra=None)

    def load(
        self,
        model: nn.Module | str | Path,
        example_inputs: Tensor | Sequence[Tensor] | None = None,
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

        module, inputs = torch_module(model, example_inputs, torch.device("cpu"), batch, seed)
        if channels_last:
            layout = torch.channels_last
            module = module.to(memory_format=layout)
            inputs = tuple(v.to(memory_format=layout) if v.ndim == 4 else v for v in inputs)
        info = RunnerInfo(
            runtime=self.name,
            version=torch.__version__,
            device=cpu_name(),
            precision=model_precision(module),
            threads=threads or default_threads(),
            batch=inputs[0].shape[0] if inputs[0].ndim else 1,
        )
        return _TorchRunner(info, module, inputs)


class _TorchRunner(WallClockRunner):
    """Sets torch's thread count for as long as it runs: the setting is global, and others share the process."""

    def __init__(self, info: RunnerInfo, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        import torch

        def call() -> object:
            with torch.inference_mode():
                return module(*inputs)

        super().__init__(info, call)

    def run(self) -> None:
        self.measure(1)

    def measure(self, runs: int) -> Samples:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.info.threads)
        try:
            return super().measure(runs)
        finally:
            torch.set_num_threads(before)


def torch_module(
    model: nn.Module | str | Path,
    example_inputs: Tensor | Sequence[Tensor] | None,
    device: Any,
    batch: int | None,
    seed: int,
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A copy of ``model`` on ``device`` in eval mode, tried once, and random inputs for it.

    Raises:
        ProfilerUsageError: a file that is no ``.pt2``, or example inputs are missing.
        RefusedError: the forward raises.
    """
    import copy

    import torch

    from exporters.inputs import as_tuple, random_inputs

    if isinstance(model, (str, Path)):
        from exporters.torch_export import load_program

        program = load_program(Path(model))
        module: nn.Module = program.module()
        example = as_tuple(example_inputs if example_inputs is not None else program.example_inputs[0])
        module = module.to(device)
    else:
        if example_inputs is None:
            raise ProfilerUsageError("A module needs example_inputs; pass a tensor or a tuple of tensors.")
        example = as_tuple(example_inputs)
        module = copy.deepcopy(model).to(device).eval()
    inputs = random_inputs(example, batch, seed=seed, device=device)
    try:
        with torch.inference_mode():
            module(*inputs)
    except Exception as error:  # the user's forward may raise anything
        text = str(error).splitlines()
        raise RefusedError(
            f"{type(module).__name__} cannot run on {[tuple(v.shape) for v in inputs]}: {text[0] if text else error!r}"
        ) from error
    return module, inputs
