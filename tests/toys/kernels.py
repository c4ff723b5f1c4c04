"""A made-up choice of kernels: every 3x3 convolution of stride 1 may have one of several kernels and dilations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from compressor.architecture.edits import ReplaceConvolution
from compressor.graph import Graph
from compressor.graph.choices import ChoiceSite
from compressor.graph.groups import Alternative

#: Kernel and dilation.
KERNELS = ((1, 1), (3, 1), (5, 1), (3, 2), (7, 1))


def find(model: nn.Module, graph: Graph) -> Sequence[ChoiceSite]:
    """All 3x3 convolutions of stride 1."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.stride == (1, 1):
            edits = [() if kd == (3, 1) else (ReplaceConvolution(name, [kd[0]] * 2, [kd[1]] * 2),) for kd in KERNELS]
            names = [f"{k}x{k}" + (f" by {d}" if d > 1 else "") for k, d in KERNELS]
            sizes = [{"kernel": (k, k), "dilation": (d, d), "padding": (d * (k - 1) // 2,) * 2} for k, d in KERNELS]
            found.append(
                ChoiceSite(
                    name,
                    [Alternative(n, e) for n, e in zip(names, edits, strict=True)],
                    current=1,
                    scaled={name: [k * k for k, _ in KERNELS]},
                    operators={name: sizes},
                )
            )
    return found
