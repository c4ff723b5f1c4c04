"""Move a stride from some modules to others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compressor.architecture.edits.base import Edit, Work

_STRIDED = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
)


@dataclass(frozen=True)
class MoveStride(Edit):
    """All of ``sources`` have the stride, and none of ``targets``; afterwards it is the other way round.

    ``stride`` has a number for each spatial axis. A stride that moves along the network leaves sizes after the later
    of the two places as they are, as every one of these modules would keep the size of its input at stride 1.
    """

    sources: list[str]
    targets: list[str]
    stride: list[int]

    kind: ClassVar[str] = "move_stride"

    def check(self, work: Work) -> None:
        if not self.sources or not self.targets or set(self.sources) & set(self.targets):
            self.refuse("it needs modules to move from and others to move to")
        if not self.stride or min(self.stride) < 1 or max(self.stride) < 2 or max(self.stride) > 64:
            self.refuse(f"{self.stride} is no stride that could be moved")
        for names, stride in ((self.sources, self.stride), (self.targets, [1] * len(self.stride))):
            for name in names:
                module = work.modules.get(name)
                if module is None:
                    self.refuse(f"the model has no module {name[:60]!r}")
                if not isinstance(module, _STRIDED):
                    self.refuse(f"{name!r} is a {type(module).__name__}, not a convolution or pooling")
                self._check(name, module, stride)

    def apply_(self, work: Work) -> None:
        for names, stride in ((self.sources, [1] * len(self.stride)), (self.targets, self.stride)):
            for name in names:
                module: Any = work.modules[name]
                module.stride = tuple(stride) if isinstance(module.stride, tuple) else stride[0]

    def _check(self, name: str, module: Any, expected: list[int]) -> None:
        n = len(expected)
        if int(type(module).__name__[-2]) != n:
            self.refuse(f"{name!r} has not the {n} spatial axes of the stride {self.stride}")
        if _each(module.stride, n) != expected:
            self.refuse(f"{name!r} has stride {module.stride}, expected {expected}")
        if not isinstance(module.stride, tuple) and len(set(self.stride)) > 1:
            self.refuse(f"{name!r} has one stride for all axes, and {self.stride} are several")
        if module.padding == "same":
            self.refuse(f"{name!r} has padding='same', which PyTorch allows at stride 1 alone")
        kernel, dilation = _each(module.kernel_size, n), _each(getattr(module, "dilation", 1), n)
        paddings = [0] * n if module.padding == "valid" else _each(module.padding, n)
        for k, d, p in zip(kernel, dilation, paddings, strict=True):
            if d * (k - 1) != 2 * p:
                self.refuse(f"at stride 1 the output of {name!r} would not be as large as its input")


def _each(value: Any, n: int) -> list[int]:
    return list(value) if isinstance(value, (tuple, list)) else [value] * n
