"""Let strided modules keep the resolution of their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compressor.architecture.edits.base import Edit, Work

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVG_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


@dataclass(frozen=True)
class KeepResolution(Edit):
    """Each of ``modules`` has a stride, and afterwards none: its output is as large as its input.

    - A convolution of an odd kernel with the padding that goes with it gets stride 1.
    - One whose kernel is its stride, without padding (patches), gets stride 1 and ``padding="same"``.
    - A pool whose window is its stride, without padding, gets windows of one element, and so does nothing.
    - Another pool of an odd window gets stride 1 and the padding that goes with it.

    Weights keep their shapes.
    """

    modules: list[str]

    kind: ClassVar[str] = "keep_resolution"

    @property
    def subject(self) -> str:
        return ", ".join(self.modules[:3])

    def check(self, work: Work) -> None:
        if not self.modules or len(set(self.modules)) < len(self.modules):
            self.refuse("it needs modules, each once")
        for name in self.modules:
            module = work.modules.get(name)
            if module is None:
                self.refuse(f"the model has no module {name[:60]!r}")
            reason = why_not(module)
            if reason:
                self.refuse(f"{name!r} {reason}")

    def apply_(self, work: Work) -> None:
        for name in self.modules:
            _keep_(work.modules[name])


def why_not(module: nn.Module) -> str:
    """Why a module cannot keep the resolution, as what follows its name; empty if it can."""
    if not isinstance(module, (*CONVOLUTIONS, *MAX_POOLS, *AVG_POOLS)):
        return f"is a {type(module).__name__}, not a convolution or pool"
    n = _axes(module)
    stride = stride_of(module)
    kernel, padding = _each(_any(module).kernel_size, n), _any(module).padding
    if max(stride) == 1:
        return "has no stride"
    if isinstance(padding, str):
        paddings = [0] * n if padding == "valid" else None
    else:
        paddings = _each(padding, n)
    if paddings is None:
        return f"has padding={padding!r}"
    patches = kernel == stride and max(paddings) == 0
    dilation = _each(getattr(module, "dilation", 1), n)
    if isinstance(module, CONVOLUTIONS):
        if patches and max(dilation) == 1 and module.padding_mode == "zeros":
            return ""
        if any(d * (k - 1) != 2 * p for k, d, p in zip(kernel, dilation, paddings, strict=True)):
            return (
                f"has kernel {kernel}, stride {stride} and padding {paddings}: at stride 1 its output would not be as "
                "large as its input"
            )
        return ""
    if max(dilation) > 1 or getattr(module, "return_indices", False):
        return "is a pool with dilation or indices"
    if not patches and any(k % 2 == 0 for k in kernel):
        return f"has windows of {kernel} at stride {stride}: at stride 1 its output would not be as large as its input"
    return ""


def stride_of(module: nn.Module) -> list[int]:
    """The stride of a convolution or pool, a number for each axis."""
    stride = _any(module).stride
    return _each(_any(module).kernel_size if stride is None else stride, _axes(module))


def _keep_(module: nn.Module) -> None:
    changed, n = _any(module), _axes(module)
    kernel, stride = _each(changed.kernel_size, n), stride_of(module)
    patches = kernel == stride and max(_each(changed.padding, n) if not isinstance(changed.padding, str) else [0]) == 0
    if isinstance(module, CONVOLUTIONS):
        if patches and max(kernel) > 1:
            changed.padding = "same"
        changed.stride = (1,) * n
        return
    size = [1] * n if patches else kernel
    changed.kernel_size, changed.stride = _like(changed.kernel_size, size), _like(changed.kernel_size, [1] * n)
    changed.padding = _like(changed.kernel_size, [k // 2 for k in size])
    changed.ceil_mode = False
    if isinstance(module, AVG_POOLS) and not patches:
        changed.count_include_pad = False


def _like(before: Any, values: list[int]) -> Any:
    """In the form of what was there: one number where one was, and can be."""
    return values[0] if isinstance(before, int) and len(set(values)) == 1 else tuple(values)


def _any(module: nn.Module) -> Any:
    return module


def _axes(module: nn.Module) -> int:
    kinds = (CONVOLUTIONS, MAX_POOLS, AVG_POOLS)
    return next(n for kind in kinds for n, each in enumerate(kind, 1) if isinstance(module, each))


def _each(value: Any, n: int) -> list[int]:
    found = list(value) if isinstance(value, (tuple, list)) else [value]
    return found * n if len(found) == 1 else found
