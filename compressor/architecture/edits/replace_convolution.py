"""Give a convolution another kernel size and dilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from compressor.architecture.edits.base import Edit, Work
from compressor.architecture.edits.slice import like

_MOST = 1024  # of a kernel's extent, holes included


@dataclass(frozen=True)
class ReplaceConvolution(Edit):
    """The output stays as large as it is. The weight is cut to its middle, or put into the middle of zeros."""

    module: str
    kernel_size: list[int]
    dilation: list[int]

    kind: ClassVar[str] = "replace_convolution"

    @property
    def tensor(self) -> str:
        return f"{self.module}.weight" if self.module else "weight"

    def check(self, work: Work) -> None:
        module = work.modules.get(self.module)
        if module is None:
            self.refuse("the model has no such module")
        if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or module._parameters.get("weight") is None:
            self.refuse(f"a {type(module).__name__} is no convolution with a weight of its own")
        n = len(module.kernel_size)
        if len(self.kernel_size) != n or len(self.dilation) != n:
            self.refuse(f"it has {n} spatial axes, and {len(self.kernel_size)} kernel sizes are given")
        for k, d in zip(self.kernel_size, self.dilation, strict=True):
            if k < 1 or d < 1 or d * (k - 1) >= _MOST:
                self.refuse(f"a kernel of size {k} and dilation {d} does not lie within 1 and {_MOST}")
        if not isinstance(module.padding, str):
            for old, new in zip(module.padding, self._padding(module), strict=True):
                if new is None:
                    self.refuse(
                        f"with the padding {old} of before no whole padding keeps the size of its output; choose "
                        "extents that differ by an even number, and are not below it"
                    )

    def apply_(self, work: Work) -> None:
        weight = work.tensors[self.tensor]
        work.put_tensor_(self.tensor, like(weight, self.sliced(self.tensor, weight.detach())))
        self.finish_(work)

    def copied(self, work: Work) -> dict[int, Any]:
        weight = work.tensors[self.tensor]
        return {id(weight): like(weight, self.sliced(self.tensor, weight.detach()))}

    def finish_(self, copy: Work) -> None:
        module: Any = copy.modules[self.module]
        if not isinstance(module.padding, str):
            module.padding = self._padding(module)
        module.kernel_size, module.dilation = tuple(self.kernel_size), tuple(self.dilation)
        module._reversed_padding_repeated_twice = _reversed(module)

    def sliced(self, name: str, tensor: Tensor) -> Tensor:
        if name != self.tensor:
            return tensor
        margins: list[int] = []
        for axis in range(tensor.dim() - 1, 1, -1):  # from the last axis on, as ``F.pad`` wants them
            old, new = tensor.shape[axis], self.kernel_size[axis - 2]
            # What PyTorch calls the same padding has one less on the left where the sum is odd.
            left = (new - 1) // 2 - (old - 1) // 2
            margins += [left, new - old - left]
        return F.pad(tensor, margins)

    def _padding(self, module: Any) -> tuple[int | None, ...]:
        """Paddings that keep the output as large as it is; None where there is none."""
        found: list[int | None] = []
        given = zip(module.padding, module.kernel_size, module.dilation, self.kernel_size, self.dilation, strict=True)
        for p, k, d, new_k, new_d in given:
            twice = 2 * p + new_d * (new_k - 1) - d * (k - 1)
            found.append(twice // 2 if twice >= 0 and twice % 2 == 0 else None)
        return tuple(found)


def _reversed(module: Any) -> list[int]:
    """What padding modes other than zeros pad by, as PyTorch's constructor works it out."""
    if module.padding == "same":
        found = []
        for d, k in zip(reversed(module.dilation), reversed(module.kernel_size), strict=True):
            total = d * (k - 1)
            found += [total // 2, total - total // 2]
        return found
    if module.padding == "valid":
        return [0] * (2 * len(module.kernel_size))
    return [p for p in reversed(module.padding) for _ in range(2)]
