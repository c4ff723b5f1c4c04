"""Uses of layers: convolutions, computed weights, normalisation."""

# ruff: noqa: E501  # a table: one use a line
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.graph.tiny import AB, IMAGE, TOKENS, A, T, among, between, case, conv, lin, par

# ---- convolutions
case("conv1d", lambda m, x: m.b(m.a(x)), (2, 3, 9), a=lambda: nn.Conv1d(3, 8, 3), b=lambda: nn.Conv1d(8, 4, 1), free=AB)
case(
    "conv3d",
    lambda m, x: m.b(m.a(x)),
    (1, 3, 4, 5, 5),
    a=lambda: nn.Conv3d(3, 8, 3),
    b=lambda: nn.Conv3d(8, 4, 1),
    free=AB,
)
case("conv unbatched", lambda m, x: m.b(m.a(x)), (3, 6, 6), free=AB, **A)
case("transposed", lambda m, x: m.b(m.t(m.a(x))), IMAGE, t=lambda: nn.ConvTranspose2d(8, 6, 2, 2), **{**A, "b": conv(6, 4)},
     free="a.weight:0 t.weight:0 t.weight:1 t.bias:0 b.weight:1")  # fmt: skip
case("transposed 1d", lambda m, x: m.b(m.a(x)), (2, 3, 7), a=lambda: nn.ConvTranspose1d(3, 8, 3), b=lambda: nn.Conv1d(8, 4, 1),
     free="a.weight:1 b.weight:1")  # fmt: skip
case("transposed grouped", lambda m, x: m.b(m.t(m.a(x))), IMAGE, **{**A, "b": conv(12, 4)},
     t=lambda: nn.ConvTranspose2d(8, 12, 2, 2, groups=4), free="a.weight:0 t.weight:0 t.weight:1 t.bias:0 b.weight:1")  # fmt: skip
case("transposed depthwise", lambda m, x: m.b(m.t(m.a(x))), IMAGE, **A, t=lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8),
     free="a.weight:0 t.weight:0 b.weight:1")  # fmt: skip
for g, o in ((2, 8), (4, 8), (2, 12), (8, 8), (8, 24)):
    case(f"grouped {g} to {o}", lambda m, x: m.b(F.relu(m.g(m.a(x)))), IMAGE, **{**A, "b": conv(o, 4)},
         g=conv(8, o, 3, groups=g), free="a.weight:0 g.weight:0 b.weight:1")  # fmt: skip
for g, i, o in ((3, 3, 24), (3, 3, 6), (1, 3, 8), (2, 4, 12), (8, 16, 32)):
    case(
        f"grouped {g} of an input of {i} to {o}",
        lambda m, x: m.b(F.relu(m.g(x))),
        (1, i, 6, 6),
        g=conv(i, o, 3, groups=g),
        b=conv(o, 4),
        free="g.weight:0 b.weight:1",
    )
    case(
        f"grouped {g} functional of an input of {i} to {o}",
        lambda m, x, g=g: m.b(F.conv2d(x, m.w, groups=g)),
        (1, i, 6, 6),
        w=par(o, i // g, 3, 3),
        b=conv(o, 4),
        free="w:0 b.weight:1",
    )
case(
    "transposed grouped of an input",
    lambda m, x: m.b(m.t(x)),
    (1, 4, 6, 6),
    t=lambda: nn.ConvTranspose2d(4, 12, 2, 2, groups=2),
    b=conv(12, 4),
    free="t.weight:1 b.weight:1",
    fixed="t.weight:0",
)
case(
    "depthwise of the image",
    lambda m, x: m.b(m.g(x)),
    IMAGE,
    g=conv(3, 3, 3, groups=3),
    b=conv(3, 4),
    fixed="g.weight:0",
)
case("cat into grouped", lambda m, x: m.b(m.g(torch.cat([m.a(x), m.c(x)], 1))), IMAGE, a=conv(3, 4), c=conv(3, 8),
     g=conv(12, 12, 3, groups=2), b=conv(12, 4), free="a.weight:0 c.weight:0 g.weight:0 b.weight:1")  # fmt: skip
case("functional conv", lambda m, x: F.conv2d(F.conv2d(x, m.v, m.c, padding=1), m.w), IMAGE, v=par(8, 3, 3, 3), c=par(8),
     w=par(4, 8, 1, 1), free="v:0 c:0 w:1")  # fmt: skip
case("functional depthwise", lambda m, x: m.b(F.conv2d(y := m.a(x), m.w, padding=1, groups=y.shape[1])), IMAGE, **A,
     w=par(8, 1, 3, 3), free="a.weight:0 w:0 b.weight:1")  # fmt: skip
case("functional grouped", lambda m, x: m.b(F.conv2d(m.a(x), m.w, padding=1, groups=2)), IMAGE, **A, w=par(8, 4, 3, 3),
     free="a.weight:0 w:0 w:1 b.weight:1")  # fmt: skip
case(
    "shared conv",
    lambda m, x: m.b(m.s(F.relu(m.s(m.a(x))))),
    IMAGE,
    **A,
    s=conv(8, 8, 3),
    free="a.weight:0 s.weight:0 s.weight:1",
)


# ---- weights that are computed
def _standardised(w: Tensor) -> Tensor:
    return (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()


case("weight standardisation", lambda m, x: m.b(F.conv2d(x, _standardised(m.w), padding=1)), IMAGE, w=par(8, 3, 3, 3), b=conv(8, 4),
     free="w:0 b.weight:1")  # fmt: skip
case("weight standardisation twice", lambda m, x: m.b(F.conv2d(m.a(x), _standardised(m.w), padding=1)), IMAGE, **A, w=par(8, 8, 3, 3),
     free="w:0 b.weight:1")  # fmt: skip
case("weight standardisation by batch norm", lambda m, x: m.b(F.conv2d(m.a(x), F.batch_norm(m.w.reshape(1, m.o, -1), None, None, m.g.view(-1),
     training=True, momentum=0.0, eps=1e-6).reshape_as(m.w))), IMAGE, **A, w=par(8, 8, 1, 1), g=par(8, 1, 1, 1), o=8,
     free="a.weight:0 w:0 w:1 g:0 b.weight:1")  # fmt: skip
case("weight norm", lambda m, x: m.b(m.c(m.a(x))), IMAGE, **A, c=lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 1)),
     free="a.weight:0 b.weight:1")  # fmt: skip
case("old weight norm", lambda m, x: m.b(m.c(m.a(x))), IMAGE, **A,
     c=lambda: nn.utils.weight_norm(nn.Conv2d(8, 8, 1)), free="a.weight:0 b.weight:1")  # fmt: skip
case(
    "spectral norm",
    lambda m, x: m.b(m.c(m.a(x))),
    IMAGE,
    **A,
    c=lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 1)),
    free="a.weight:0 b.weight:1 c.parametrizations.weight.original:0",
)
case("old spectral norm", lambda m, x: m.b(m.c(m.a(x))), IMAGE, **A, c=lambda: nn.utils.spectral_norm(nn.Conv2d(8, 8, 3, padding=1)),
     free="a.weight:0 b.weight:1 c.weight_orig:0")  # fmt: skip
case("spectral norm of a transposed convolution", lambda m, x: m.b(m.c(m.a(x))), IMAGE, **A, c=lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(8, 8, 1)),
     free="a.weight:0 b.weight:1 c.parametrizations.weight.original:1")  # fmt: skip
case("spectral norm of linear layers", lambda m, x: m.b(F.relu(m.a(x))), TOKENS, a=lambda: parametrizations.spectral_norm(nn.Linear(8, 12)), b=lambda: parametrizations.spectral_norm(nn.Linear(12, 4)),
     free="a.parametrizations.weight.original:0 b.parametrizations.weight.original:1")  # fmt: skip
case("low rank", lambda m, x: m.b(F.linear(m.a(x), m.u @ m.v)), TOKENS, **{**T, "b": lin(10, 4)}, u=par(10, 3), v=par(3, 12),
     free="a.weight:0 u:0 u:1 v:0 v:1 b.weight:1")  # fmt: skip
case("low rank update", lambda m, x: m.b(F.linear(m.a(x), m.w + m.u @ m.v)), TOKENS, **{**T, "b": lin(10, 4)}, u=par(10, 3), v=par(3, 12),
     w=par(10, 12), free="a.weight:0 w:0 w:1 u:1 b.weight:1")  # fmt: skip
case("reparametrised branches", lambda m, x: m.b(F.conv2d(m.a(x), m.w + F.pad(m.v, (1, 1, 1, 1)), padding=1)), IMAGE, **A,
     w=par(8, 8, 3, 3), v=par(8, 8, 1, 1), free="a.weight:0 w:0 w:1 b.weight:1")  # fmt: skip
case("scaled weight", lambda m, x: m.b(F.conv2d(m.a(x), m.w * m.s)), IMAGE, **A, w=par(8, 8, 1, 1), s=par(8, 1, 1, 1),
     free="a.weight:0 w:0 w:1 s:0 b.weight:1")  # fmt: skip
case("tied weights", lambda m, x: F.linear(F.relu(m.a(x)), m.a.weight.t()), TOKENS, a=lin(8, 12), free="a.weight:0 a.bias:0",
     fixed="a.weight:1")  # fmt: skip
case("tied embedding", lambda m, i: F.linear(m.n(m.e(i)), m.e.weight), lambda: torch.randint(0, 9, (2, 5)),
     e=lambda: nn.Embedding(9, 8), n=lambda: nn.LayerNorm(8), free="e.weight:1 n.weight:0", fixed="e.weight:0")  # fmt: skip
case("dynamic convolution", lambda m, x: m.b(F.conv2d(m.a(x), (m.k(x.mean((0, 2, 3))).softmax(-1) @ m.w.flatten(1)).view(8, 8, 1, 1))),
     IMAGE, **A, k=lin(3, 4), w=par(4, 8, 8))  # fmt: skip

# ---- normalisation
between(
    "batch norm",
    lambda x: x,
    a=lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
    free="a.0.weight:0 a.1.running_mean:0",
)
for n_groups in (1, 2, 8):
    case(
        f"group norm {n_groups}",
        lambda m, x: m.b(m.n(m.a(x))),
        IMAGE,
        **A,
        n=lambda g=n_groups: nn.GroupNorm(g, 8),
        free=f"{AB} n.weight:0",
    )
case("group norm functional", lambda m, x: m.b(F.group_norm(m.a(x), 2)), IMAGE, **A, free=AB)
case(
    "instance norm",
    lambda m, x: m.b(m.n(m.a(x))),
    IMAGE,
    **A,
    n=lambda: nn.InstanceNorm2d(8, affine=True),
    free=f"{AB} n.weight:0",
)
case("layer norm", lambda m, x: m.b(m.n(m.a(x))), TOKENS, **T, n=lambda: nn.LayerNorm(12), free=f"{AB} n.weight:0")
case("layer norm functional", lambda m, x: m.b(F.layer_norm(y := m.a(x), (y.shape[-1],))), TOKENS, **T, free=AB)
case("layer norm constant", lambda m, x: m.b(F.layer_norm(m.a(x), (12,))), TOKENS, **T, fixed=AB)
case("layer norm of space too", lambda m, x: m.b(m.n(m.a(x))), IMAGE, **A, n=lambda: nn.LayerNorm([8, 6, 6]), free=AB)
case("layer norm over space", lambda m, x: m.b(m.n(m.a(x))), IMAGE, **A, n=lambda: nn.LayerNorm([6, 6]), free=AB)
case("rms norm", lambda m, x: m.b(m.n(m.a(x))), TOKENS, **T, n=lambda: nn.RMSNorm(12), free=f"{AB} n.weight:0")
case("channels first layer norm", lambda m, x: m.b(m.n(m.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), IMAGE, **A,
     n=lambda: nn.LayerNorm(8), free=f"{AB} n.weight:0")  # fmt: skip


def _by_hand(x: Tensor) -> Tensor:
    u = x.mean(1, keepdim=True)
    return (x - u) / torch.sqrt((x - u).pow(2).mean(1, keepdim=True) + 1e-6)


between("layer norm by hand", _by_hand)
between(
    "layer norm by variance",
    lambda x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, unbiased=False, keepdim=True) + 1e-6),
)
among("rms norm by hand", lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
among("rms norm by size", lambda x: x / (x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5 + 1e-6))
between(
    "var mean",
    lambda x: (x - torch.var_mean(x, 1, keepdim=True)[1]) / (torch.var_mean(x, dim=1, keepdim=True)[0] + 1e-3).sqrt(),
)
between("normalize", lambda x: F.normalize(x, dim=1))
between(
    "global response norm",
    lambda x: x * (g := x.norm(p=2, dim=(2, 3), keepdim=True)) / (g.mean(1, keepdim=True) + 1e-6),
)
between("local response norm", lambda x: F.local_response_norm(x, 3), free="")
