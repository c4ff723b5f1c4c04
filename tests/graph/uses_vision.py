"""Uses of torchvision's own operators: deformable convolution, and pooling over boxes."""

# ruff: noqa: E501  # a table: one use a line
from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from tests.graph.tiny import AB, IMAGE, A, case, conv, par

ops = torchvision.ops


def _boxes(x: Tensor) -> Tensor:
    return torch.tensor([[0, 0, 0, 4, 4], [0, 1, 1, 5, 5.0]], dtype=x.dtype, device=x.device)


# offsets and masks for (groups of offsets) times 9 places
for groups, moved, masked in (
    (1, 1, True),
    (1, 1, False),
    (2, 1, True),
    (1, 2, True),
    (1, 4, False),
    (2, 2, True),
    (2, 4, True),
    (4, 2, False),
    (8, 1, True),
    (8, 8, True),
):
    case(f"deformable {groups} groups, {moved} of offsets{', masked' * masked}", lambda m, x: m.b(m.d(y := m.a(x), m.o(y), m.k(y).sigmoid() if hasattr(m, "k") else None)), IMAGE, **{**A, "b": conv(16, 4)},
         d=lambda g=groups: ops.DeformConv2d(8, 16, 3, padding=1, groups=g), o=conv(8, 18 * moved, 3), **({"k": conv(8, 9 * moved, 3)} if masked else {}),
         free="a.weight:0 b.weight:1 d.weight:0 d.bias:0 o.weight:1", fixed="o.weight:0" if moved == 1 else "")  # fmt: skip
case(
    "deformable as a function",
    lambda m, x: m.b(ops.deform_conv2d(m.a(x), m.o(x), m.w)),
    IMAGE,
    **A,
    o=conv(3, 2),
    w=par(8, 8, 1, 1),
    free=f"{AB} w:0 w:1",
)
case(
    "deformable of the image",
    lambda m, x: m.b(ops.deform_conv2d(x, m.o(x), m.w, padding=1)),
    IMAGE,
    b=conv(12, 4),
    o=conv(3, 18, 3),
    w=par(12, 1, 3, 3),
    free="w:0 b.weight:1",
    fixed="o.weight:0",
)
for pool in (ops.roi_align, ops.roi_pool):
    case(pool.__name__, lambda m, x, pool=pool: m.b(pool(y := m.a(x), _boxes(y), (2, 2))), IMAGE, **A, free=AB)
for pool in (ops.ps_roi_align, ops.ps_roi_pool):
    case(
        pool.__name__,
        lambda m, x, pool=pool: m.b(pool(y := m.a(x), _boxes(y), (2, 2))),
        IMAGE,
        a=conv(3, 32),
        b=conv(8, 4),
        free=AB,
    )
case(
    "roi of a pyramid",
    lambda m, x: m.b(
        ops.MultiScaleRoIAlign(["0", "1"], 2, 2)({"0": m.a(x), "1": m.c(x)}, [_boxes(x)[:, 1:]], [(6, 6)])
    ),
    IMAGE,
    **A,
    c=conv(3, 8, 3),
    free=f"{AB} c.weight:0",
)
case(
    "non-maximum suppression",
    lambda m, x: m.b((y := m.a(x)) + ops.nms(_boxes(x)[:, 1:], y.mean((2, 3))[0, :2], 0.5).shape[0]),
    IMAGE,
    **A,
)
case("drop block", lambda m, x: m.b(ops.drop_block2d(m.a(x), 0.5, 2, training=False)), IMAGE, **A, free=AB)
case(
    "frozen batch norm",
    lambda m, x: m.b(m.n(m.a(x))),
    IMAGE,
    **A,
    n=lambda: ops.FrozenBatchNorm2d(8),
    free=f"{AB} n.weight:0 n.running_mean:0",
)
case(
    "stochastic depth", lambda m, x: m.b(ops.stochastic_depth(m.a(x), 0.5, "row", training=False)), IMAGE, **A, free=AB
)
