"""Uses of gates, softmax, residuals, several inputs and outputs."""

# ruff: noqa: E501  # a table: one use a line
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.graph.tiny import AB, IMAGE, TOKENS, A, T, among, between, case, conv, lin, par

# ---- gates
between("squeeze excite", lambda x: x * x.mean((2, 3), keepdim=True).sigmoid())
case("squeeze excite layers", lambda m, x: m.b((y := m.a(x)) * m.e(F.relu(m.s(F.adaptive_avg_pool2d(y, 1)))).sigmoid()), IMAGE, **A,
     s=conv(8, 3), e=conv(3, 8), free=f"{AB} s.weight:0 s.weight:1 e.weight:0 e.weight:1")  # fmt: skip
case("squeeze excite linear", lambda m, x: m.b((y := m.a(x)) * m.e(F.relu(m.s(y.mean((2, 3))))).sigmoid().view(*y.shape[:2], 1, 1)), IMAGE, **A,
     s=lin(8, 3), e=lin(3, 8), free=f"{AB} s.weight:0 s.weight:1 e.weight:0 e.weight:1")  # fmt: skip
case("squeeze excite by view", lambda m, x: m.b((y := m.a(x)) * m.e(F.relu(m.s(F.adaptive_avg_pool2d(y, 1).view(y.size(0), y.size(1)))))
     .sigmoid().view(y.size(0), y.size(1), 1, 1).expand_as(y)), IMAGE, **A, s=lin(8, 3), e=lin(3, 8), free=f"{AB} s.weight:0 e.weight:0")  # fmt: skip
case("channel attention by conv1d", lambda m, x: m.b((y := m.a(x)) * m.s(y.mean((2, 3)).unsqueeze(1)).sigmoid().view(1, -1, 1, 1)), IMAGE, **A,
     s=lambda: nn.Conv1d(1, 1, 3, padding=1), free=AB)  # fmt: skip
case("channel attention expanded", lambda m, x: m.b((y := m.a(x)) * m.s(y.mean((2, 3)).view(1, 1, -1)).sigmoid().view(1, -1, 1, 1).expand_as(y)), IMAGE,
     **A, s=lambda: nn.Conv1d(1, 1, 3, padding=1), free=AB)  # fmt: skip
case("channel attention transposed", lambda m, x: m.b((y := m.a(x)) * m.s(F.adaptive_avg_pool2d(y, 1).squeeze(-1).mT).mT.unsqueeze(-1).sigmoid().expand_as(y)), IMAGE,
     **A, s=lambda: nn.Conv1d(1, 1, 5, padding="same", bias=False), free=AB)  # fmt: skip
case("channel attention twice, dilated", lambda m, x: m.b((y := m.a(x)) * m.t(m.s(y.amax((2, 3)).unsqueeze(1)).relu()).sigmoid().view(1, -1, 1, 1)), IMAGE, **A,
     s=lambda: nn.Conv1d(1, 1, 3, padding=2, dilation=2), t=lambda: nn.Conv1d(1, 1, 3, padding=1), free=AB)  # fmt: skip
case("channel attention by a function", lambda m, x: m.b((y := m.a(x)) * F.conv1d(y.mean((2, 3))[:, None], m.w, padding=1).sigmoid().mT[..., None]), IMAGE, **A, w=par(1, 1, 3),
     free=AB)  # fmt: skip
case("channel attention by conv2d", lambda m, x: m.b((y := m.a(x)) * m.s(y.mean((2, 3))[:, None, :, None]).sigmoid().transpose(1, 2)), IMAGE, **A,
     s=lambda: nn.Conv2d(1, 1, (3, 1), padding=(1, 0)), free=AB)  # fmt: skip
case("channel attention that shortens", lambda m, x: m.b((y := m.a(x)) + m.s(y.mean((2, 3)).unsqueeze(1)).mean()), IMAGE, **A, s=lambda: nn.Conv1d(1, 1, 3), fixed=AB)  # fmt: skip
case(
    "conv across tokens",
    lambda m, x: m.b(m.s(m.a(x)).squeeze(1)),
    (1, 3, 8),
    **T,
    s=lambda: nn.Conv1d(3, 1, 1),
    free=AB,
)
case("spatial attention", lambda m, x: m.b((y := m.a(x)) * m.s(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)).sigmoid()),
     IMAGE, **A, s=conv(2, 1, 3), free=AB)  # fmt: skip
case("spatial attention by max", lambda m, x: m.b((y := m.a(x)) * m.s(torch.max(y, dim=1, keepdim=True)[0]).sigmoid()), IMAGE, **A,
     s=conv(1, 1, 3), free=AB)  # fmt: skip
case("selective kernels", lambda m, x: m.b(((s := torch.stack([m.a(x), m.c(x)], 1)) * m.e(F.relu(m.s(s.sum(1).mean((2, 3), keepdim=True))))
     .view(1, 2, -1, 1, 1).softmax(1)).sum(1)), IMAGE, **A, c=conv(3, 8, 3), s=conv(8, 3), e=conv(3, 16), free=f"{AB} c.weight:0 e.weight:0")  # fmt: skip
case("split attention", lambda m, x: m.b(((y := m.g(x)).reshape(1, m.radix, y.shape[1] // m.radix, 6, 6)
     * m.e(F.relu(m.s(y.reshape(1, m.radix, -1, 6, 6).sum(1).mean((2, 3), keepdim=True)))).view(1, 1, m.radix, -1).transpose(1, 2).softmax(1)
     .reshape(1, m.radix, -1, 1, 1)).sum(1)), IMAGE, radix=2, g=conv(3, 16, 3), s=conv(8, 3), e=conv(3, 16), b=conv(8, 4),
     free="g.weight:0 s.weight:1 e.weight:0 b.weight:1")  # fmt: skip
case("glu", lambda m, x: m.b(F.glu(m.a(x), -1)), TOKENS, a=lin(8, 24), b=lin(12, 4), free=AB)
case(
    "gated by chunk",
    lambda m, x: m.b(F.silu((y := m.a(x).chunk(2, -1))[0]) * y[1]),
    TOKENS,
    a=lin(8, 24),
    b=lin(12, 4),
    free=AB,
)
case("gated apart", lambda m, x: m.b(F.silu(m.a(x)) * m.c(x)), TOKENS, **T, c=lin(8, 12), free=f"{AB} c.weight:0")
among("softmax over channels", lambda x: x.softmax(-1))
among("softmin over channels", lambda x: F.softmin(x, -1))
among("softmin over channels, a module", lambda x: nn.Softmin(2)(x))
between("local response norm", lambda x: F.local_response_norm(x, 3, 0.5))
between("local response norm, an even window", lambda x: nn.LocalResponseNorm(4, alpha=0.7)(x))
between("local response norm of a signal", lambda x: F.local_response_norm(x.flatten(2), 5, 0.5).view_as(x))
among("log softmax over channels", lambda x: F.log_softmax(x, dim=-1), free="")
among("softmax of tokens", lambda x: x.softmax(1) * x)
case("layer scale", lambda m, x: m.b(m.a(x) * m.g), TOKENS, **T, g=par(12), free=f"{AB} g:0")
case("prelu", lambda m, x: m.b(m.p(m.a(x))), IMAGE, **A, p=lambda: nn.PReLU(8), free=f"{AB} p.weight:0")
case("prelu one slope", lambda m, x: m.b(m.p(m.a(x))), IMAGE, **A, p=nn.PReLU, free=AB)
case(
    "buffer",
    lambda m, x: m.b(m.n(m.a(x))),
    IMAGE,
    **A,
    n=lambda: nn.BatchNorm2d(8, affine=False),
    free=f"{AB} n.running_var:0",
)

# ---- residuals, several inputs and outputs
case("residual", lambda m, x: m.b(F.relu((y := m.a(x)) + m.c(F.relu(m.d(y))))), IMAGE, **A, d=conv(8, 5, 3), c=conv(5, 8),
     free=f"{AB} d.weight:0 d.weight:1 c.weight:0 c.weight:1")  # fmt: skip
case("in place", lambda m, x: m.b(m.a(x).relu_().add_(1.0).mul_(2.0)), IMAGE, **A, free=AB)
case(
    "two inputs", lambda m, x, z: m.b(m.a(x) * m.c(z)), IMAGE, (1, 5, 6, 6), **A, c=conv(5, 8), free=f"{AB} c.weight:0"
)
case(
    "dict output",
    lambda m, x: {"y": m.b(m.a(x)), "z": [m.c(m.a(x))]},
    IMAGE,
    **A,
    c=conv(8, 2),
    free=f"{AB} c.weight:1",
    fixed="c.weight:0",
)
case("output between", lambda m, x: (m.b(y := m.a(x)), y), IMAGE, **A, fixed=AB)
case("dense", lambda m, x: m.b(torch.cat([y := m.a(x), z := m.c(y), m.d(torch.cat([y, z], 1))], 1)), IMAGE, a=conv(3, 8), c=conv(8, 6), d=conv(14, 6),
     b=conv(20, 4), free="a.weight:0 c.weight:0 d.weight:0 d.weight:1 b.weight:1")  # fmt: skip
case(
    "interpolated sum",
    lambda m, x: m.b(m.a(x) + F.interpolate(m.c(F.max_pool2d(x, 2)), size=(6, 6))),
    IMAGE,
    **A,
    c=conv(3, 8),
    free=AB,
)
