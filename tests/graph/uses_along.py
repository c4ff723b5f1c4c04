"""Uses of operators that act along other axes than the channels: transforms, complex numbers, orders, matrix algebra."""

# ruff: noqa: E501  # a table: one use a line
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.tiny import AB, IMAGE, TOKENS, A, between, case, conv, lin, par

fft = torch.fft


def _complex(*shape: int) -> Any:
    return lambda: nn.Parameter(torch.randn(*shape, dtype=torch.cfloat))


# ---- Fourier transforms
for name, run in {
    "fft": lambda x: fft.ifft(fft.fft(x)).real, "rfft2": lambda x: fft.irfft2(fft.rfft2(x), s=x.shape[-2:]), "fft2": lambda x: fft.ifft2(fft.fft2(x).roll(1, -1)).imag,
    "fftn": lambda x: fft.ifftn(fft.fftn(x, dim=(2, 3)), dim=(2, 3)).real, "rfftn": lambda x: fft.irfftn(fft.rfftn(x, dim=(-2, -1)), s=(6, 6), dim=(-2, -1)),
    "hfft": lambda x: fft.hfft(fft.ihfft(x)), "hfft2": lambda x: fft.hfft2(fft.ihfft2(x)), "hfftn": lambda x: fft.hfftn(fft.ihfftn(x, dim=(2, 3)), dim=(2, 3)),
    "fft of other length": lambda x: fft.fft(x, n=8, norm="ortho").abs()[..., :6], "fft of another axis": lambda x: fft.fft(x, dim=2).angle(),
    "fftshift": lambda x: fft.ifftshift(fft.fftshift(fft.fft2(x), dim=(-2, -1)), dim=-1).abs(), "roll of a spectrum": lambda x: fft.fft2(x).roll((1, 2), (2, 3)).real,
    "stft": lambda x: torch.stft(x.flatten(2).flatten(0, 1), 8, 4, window=torch.hann_window(8), return_complex=True).abs().view(x.shape[0], x.shape[1], 5, -1),
    "stft and back": lambda x: torch.istft(torch.stft(x.flatten(2).flatten(0, 1), 8, 2, window=torch.hann_window(8), return_complex=True) * 2, 8, 2, window=torch.hann_window(8)).view(*x.shape[:2], 6, -1),
}.items():  # fmt: skip
    between(f"transform {name}", run)
between("transform over channels", lambda x: fft.fft(x, dim=1).real, free="")

# ---- complex numbers
for name, run in {
    "parts": lambda x: fft.rfft2(x).real + fft.rfft2(x).imag, "parts by view": lambda x: torch.view_as_real(fft.rfft2(x)).sum(-1),
    "view as complex": lambda x: torch.view_as_complex(torch.stack([x, x.sin()], -1)).abs(), "complex": lambda x: torch.complex(x, x.cos()).angle(),
    "polar": lambda x: torch.polar(x.abs(), x).imag, "conjugate": lambda x: (fft.rfft2(x).conj() * fft.rfft2(x.sin())).resolve_conj().real,
    "adjoint": lambda x: (fft.fft(x) @ fft.fft(x.sin()).mH).abs(), "tokens": lambda x: fft.rfft2(x).flatten(2).transpose(1, 2).abs().transpose(1, 2)[..., None],
    "exponential": lambda x: torch.exp(1j * x).real * torch.sgn(x + 0j).real, "softmax of modulus": lambda x: fft.rfft2(x) .abs().softmax(-1),
}.items():  # fmt: skip
    between(f"complex {name}", run)
case("complex parts as channels", lambda m, x: m.b(fft.irfft2(torch.complex(*m.c(torch.cat([(f := fft.rfft2(m.a(x))).real, f.imag], 1)).chunk(2, 1)), s=x.shape[-2:])), IMAGE,
     **A, c=conv(16, 16), free=f"{AB} c.weight:0 c.weight:1")  # fmt: skip
case("complex parts interleaved", lambda m, x: m.b(fft.irfft2(torch.view_as_complex(m.c(torch.view_as_real(f := fft.rfft2(m.a(x))).permute(0, 1, 4, 2, 3).reshape(f.shape[0], -1, *f.shape[2:]))
     .view(f.shape[0], -1, 2, *f.shape[2:]).permute(0, 1, 3, 4, 2).contiguous()), s=x.shape[-2:])), IMAGE, **A, c=conv(16, 16), free=f"{AB} c.weight:0 c.weight:1")  # fmt: skip
case(
    "global filter",
    lambda m, x: m.b(fft.irfft2(fft.rfft2(m.a(x)) * torch.view_as_complex(m.w), s=(6, 6))),
    IMAGE,
    **A,
    w=par(8, 6, 4, 2),
    free=f"{AB} w:0",
)
case(
    "global complex filter",
    lambda m, x: m.b(fft.irfft2(fft.rfft2(m.a(x)) * m.w, s=(6, 6))),
    IMAGE,
    **A,
    w=_complex(8, 6, 4),
    free=f"{AB} w:0",
)
case(
    "filter last",
    lambda m, x: m.b(fft.irfft(fft.rfft(m.a(x), dim=1) * m.w, n=5, dim=1)),
    (1, 5, 8),
    a=lin(8, 12),
    b=lin(12, 4),
    w=_complex(3, 12),
    free=f"{AB} w:1",
)
case("fourier mixing", lambda m, x: m.b(fft.fft(m.a(x), dim=1).real), (1, 5, 8), a=lin(8, 12), b=lin(12, 4), free=AB)
case("complex linear", lambda m, x: m.b((fft.rfft(m.a(x), dim=1) @ m.w + m.c).abs()), (1, 5, 8), a=lin(8, 12), b=lin(10, 4), w=_complex(12, 10), c=_complex(10),
     free="a.weight:0 w:0 w:1 c:0 b.weight:1")  # fmt: skip
case("complex by parts", lambda m, x: m.b(fft.irfft(torch.complex((f := fft.rfft(m.a(x), dim=1)).real @ m.w[0] - f.imag @ m.w[1], f.imag @ m.w[0] + f.real @ m.w[1]), n=5, dim=1)),
     (1, 5, 8), a=lin(8, 12), b=lin(10, 4), w=par(2, 12, 10), free="a.weight:0 w:1 w:2 b.weight:1")  # fmt: skip
case("complex layers", lambda m, x: m.b(m.c(m.a(x).to(torch.cfloat)).abs()), (1, 5, 8), a=lin(8, 12), b=lin(10, 4), c=lin(12, 10, dtype=torch.cfloat),
     free="a.weight:0 c.weight:0 c.weight:1 b.weight:1")  # fmt: skip


def _spectral(m: Any, x: Tensor) -> Tensor:
    """The lowest frequencies of both signs, through complex weights, into a spectrum of zeros."""
    f, w, k = fft.rfft2(x), m.w, m.modes
    y = torch.zeros(
        x.shape[0], m.out if hasattr(m, "out") else w.shape[1], f.shape[2], f.shape[3], dtype=f.dtype, device=x.device
    )
    y[:, :, :k, :k] = torch.einsum("bixy,ioxy->boxy", f[:, :, :k, :k], w)
    y[:, :, -k:, :k] = torch.einsum("bixy,ioxy->boxy", f[:, :, -k:, :k], w.conj())
    return fft.irfft2(y, s=x.shape[-2:])


case(
    "spectral layer",
    lambda m, x: m.b(_spectral(m, m.a(x))),
    IMAGE,
    a=conv(3, 8),
    b=conv(6, 4),
    w=_complex(8, 6, 2, 2),
    modes=2,
    free=f"{AB} w:0 w:1",
)
case(
    "spectral layer by attribute",
    lambda m, x: m.b(_spectral(m, m.a(x))),
    IMAGE,
    a=conv(3, 8),
    b=conv(6, 4),
    w=_complex(8, 6, 2, 2),
    modes=2,
    out=6,
    free=f"{AB} w:0 w:1",
)
case("spectral layer of real weights", lambda m, x: m.b(_spectral(SimpleNamespace(w=torch.view_as_complex(m.v), modes=2), m.a(x))), IMAGE, a=conv(3, 8), b=conv(6, 4), v=par(8, 6, 2, 2, 2),
     free=f"{AB} v:0 v:1")  # fmt: skip
case(
    "spectral residual",
    lambda m, x: m.b(F.gelu(_spectral(m, y := m.a(x)) + m.c(y))),
    IMAGE,
    a=conv(3, 8),
    b=conv(8, 4),
    c=conv(8, 8),
    w=_complex(8, 8, 2, 2),
    modes=2,
    free=f"{AB} w:0 w:1",
)
case("spectral by matmul", lambda m, x: m.b(fft.irfft((fft.rfft(m.a(x)).permute(2, 0, 1) @ m.w).permute(1, 2, 0), n=6)), (1, 3, 6), a=lambda: nn.Conv1d(3, 8, 1), b=lambda: nn.Conv1d(6, 4, 1),
     w=_complex(4, 8, 6), free=f"{AB} w:1 w:2")  # fmt: skip
case("spectral zeros like", lambda m, x: m.b(_overwritten(fft.rfft2(m.a(x)))), IMAGE, **A, free=AB)


def _overwritten(f: Tensor) -> Tensor:
    y = torch.zeros_like(f)
    y[..., :2] = f[..., :2]
    return fft.irfft2(y, s=(6, 6))


# ---- orders, moves and matrices along the other axes
_IDS = torch.tensor([0, 1, 2, 0, 1, 2])
for name, run in {
    "rot90": lambda x: x.rot90(1, (2, 3)) + torch.rot90(x, 3, [2, 3]), "triangles": lambda x: x.tril() + x.triu(1), "diagonal": lambda x: x.diagonal(0, 2, 3)[..., None],
    "diagonal laid out": lambda x: torch.diag_embed(x.mean(-1)), "off diagonal": lambda x: x.diagonal(1, 2, 3)[..., None], "trace": lambda x: x * torch.einsum("bcii->bc", x)[..., None, None],
    "diagonal of channels": lambda x: torch.diagonal((t := x.flatten(2)) @ t.transpose(1, 2), 0, 1, 2)[..., None, None] * x,
    "scaled by a diagonal": lambda x: (torch.diag_embed(x.mean((2, 3))) @ x.flatten(2)).view_as(x), "cummax": lambda x: x.cummax(2)[0] + x.cummin(3)[0], "cumulative": lambda x: x.cumsum(2) + x.cumprod(3) + x.logcumsumexp(3),
    "kthvalue": lambda x: x.kthvalue(2, 3)[0][..., None], "mode": lambda x: x.mode(3)[0][..., None], "medians": lambda x: x.median(3, keepdim=True)[0] + x.nanmedian(2, keepdim=True)[0],
    "quantile": lambda x: x.quantile(0.5, 3)[..., None], "sort": lambda x: x.sort(3)[0] + x.argsort(2), "topk": lambda x: x.topk(2, 3)[0], "nansum": lambda x: x - x.nansum(3, keepdim=True) + x.nanmean(2, keepdim=True),
    "count": lambda x: x * x.count_nonzero(3)[..., None], "extremes": lambda x: x - torch.aminmax(x, dim=3, keepdim=True)[0], "renorm": lambda x: x.renorm(2, 1, 0.5), "cross": lambda x: torch.cross(x[..., :3], x[..., 3:], dim=3),
    "inverse": lambda x: torch.linalg.inv(x + 10 * torch.eye(6)), "singular values": lambda x: torch.linalg.svdvals(x)[..., None], "qr": lambda x: torch.linalg.qr(x)[0], "determinant": lambda x: x * torch.det(x)[..., None, None],
    "solve": lambda x: torch.linalg.solve(x + 10 * torch.eye(6), x), "cholesky": lambda x: torch.linalg.cholesky(x @ x.mT + 10 * torch.eye(6)), "matrix exponential": lambda x: torch.matrix_exp(x * 0.1),
    "eigenvalues": lambda x: torch.linalg.eigvalsh(x @ x.mT + torch.diag(torch.arange(6.0)))[..., None], "pseudo-inverse": lambda x: torch.linalg.pinv(x), "matrix norm": lambda x: x * torch.linalg.matrix_norm(x)[..., None, None],
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 6), 3, padding=1), "max unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "max unpool 1d": lambda x: F.max_unpool1d(*F.max_pool1d(x.flatten(2), 2, return_indices=True), 2).view(x.shape), "repeat": lambda x: x.repeat_interleave(2, 3), "difference": lambda x: x.diff(dim=3),
    "gather": lambda x: x.gather(3, x.argsort(3)) + torch.take_along_dim(x, x.argmax(3, keepdim=True), 3), "scatter add": lambda x: torch.zeros_like(x).scatter_add(3, _IDS.expand_as(x), x.sin()),
    "scatter reduce": lambda x: x.scatter_reduce(3, _IDS.expand(x.shape), x.sin(), "amax"), "index reduce": lambda x: x.index_reduce(2, _IDS, x, "amax"), "index add": lambda x: x.index_add(2, _IDS[:2], x[:, :, :2]),
    "index copy": lambda x: x.index_copy(2, _IDS[:2], x[:, :, 2:4]).index_fill(3, _IDS[:2], 1.0), "slice scatter": lambda x: torch.slice_scatter(x, x[:, :, :2].sin(), 2, 0, 2), "select scatter": lambda x: torch.select_scatter(x, x[:, :, 0].sin(), 2, 3),
    "diagonal scatter": lambda x: torch.diagonal_scatter(x, x[:, :, 0], 0, 2, 3), "bucketize": lambda x: torch.bucketize(x, torch.linspace(-1, 1, 5)).to(x.dtype), "searchsorted": lambda x: torch.searchsorted(torch.linspace(-1, 1, 5), x).to(x.dtype),
    "searchsorted rows": lambda x: torch.searchsorted(x.cumsum(-1), x).to(x.dtype), "losses": lambda x: F.mse_loss(x, x.sin(), reduction="none") + F.huber_loss(x, x.cos(), reduction="none"),
    "assigned by index": lambda x: _put(x, (slice(None), slice(None), _IDS[1:3]), x[:, :, :2].sin()), "assigned a number": lambda x: _put(x, (..., _IDS[1:3]), 0.0), "assigned by mask": lambda x: _put(x, x > 0, 0.5),
    "assigned at places": lambda x: _put(x, (slice(None), slice(None), _IDS[:3], _IDS[3:]), x[..., 0, :3]),
}.items():  # fmt: skip
    between(f"along {name}", run)
for name, run in {"assigned to channels": lambda x: _put(x, (slice(None), _IDS[1:3]), x[:, :2].sin()), "masked scatter": lambda x: x.masked_scatter(x > 0, x.flatten()),
                  "sort of channels": lambda x: x.sort(1)[0], "renorm over channels": lambda x: x.renorm(2, 2, 0.5), "inverse of channels": lambda x: x @ torch.linalg.pinv((t := x.flatten(2)) @ t.mT)[:, :6, :6],
                  "mean loss": lambda x: x * F.mse_loss(x, x.sin())}.items():  # fmt: skip
    between(f"along {name}", run, free="", fixed="a.weight:0")


def _put(x: Tensor, where: Any, what: Any) -> Tensor:
    y = x.clone()
    y[where] = what
    return y


# ---- distances and products
for name, run in {
    "cosine of channels": lambda x: x * F.cosine_similarity(x, x.sin(), dim=1).unsqueeze(1), "cosine of places": lambda x: x * F.cosine_similarity(x, x.sin(), dim=3).unsqueeze(3),
    "distance of places": lambda x: x * F.pairwise_distance(x, x.sin(), keepdim=True), "distance of channels": lambda x: x * F.pairwise_distance(x.transpose(1, 3), x.sin().transpose(1, 3), eps=0.1, keepdim=True).transpose(1, 3),
    "vecdot of places": lambda x: x * torch.linalg.vecdot(x, x.sin())[..., None], "vecdot of channels": lambda x: x * torch.linalg.vecdot(x, x.sin(), dim=1)[:, None],
    "all distances": lambda x: (torch.cdist(t := x.flatten(2).mT, t.sin()) @ t).mT.reshape(x.shape), "all distances in places": lambda x: torch.cdist(x, x + 1), "taxi distances": lambda x: (torch.cdist(t := x.flatten(2).mT, t.sin(), p=1) @ t).mT.reshape(x.shape),
    "outer": lambda x: x * torch.outer(x.mean((0, 2, 3)), torch.ones(1)).view(1, -1, 1, 1), "inner": lambda x: x + torch.inner(x.transpose(1, 3), x.mean((2, 3))).transpose(1, 3),
    "sum of products": lambda x: torch.addbmm(torch.zeros(6, 6), x[0], x[0].mT)[None, None] + x, "batched": lambda x: torch.baddbmm(x[0], x[0], x[0].mT)[None],
}.items():  # fmt: skip
    between(f"product {name}", run)
case(
    "product with a codebook",
    lambda m, x: m.b((y := m.a(x)) * torch.cdist(y, m.e).softmax(-1).square().sum(-1, keepdim=True)),
    (1, 5, 8),
    a=lin(8, 12),
    b=lin(12, 4),
    e=par(9, 12),
    free=f"{AB} e:1",
)
for product in (torch.dot, torch.vdot, torch.inner):
    case(
        f"product {product.__name__} with a weight",
        lambda m, x, f=product: m.b((y := m.a(x)) * f(y.mean((0, 2, 3)), m.v)),
        IMAGE,
        **A,
        v=par(8),
        free=f"{AB} v:0",
    )
case(
    "product of a matrix",
    lambda m, x: m.b(torch.addmv(m.v, m.w, m.a(x).mean((0, 2, 3)))[None, :, None, None]),
    IMAGE,
    a=conv(3, 8),
    b=conv(6, 4),
    v=par(6),
    w=par(6, 8),
    free=f"{AB} v:0 w:0 w:1",
)
case(
    "product addr",
    lambda m, x: m.b((y := m.a(x)) + torch.addr(m.w, y.mean((0, 2, 3)), m.v)[None, ..., None].mean(2, keepdim=True)),
    IMAGE,
    **A,
    w=par(8, 5),
    v=par(5),
    free=f"{AB} w:0",
)
case(
    "product tensordot",
    lambda m, x: m.b(torch.tensordot(m.a(x), m.w, dims=([1], [0])).permute(0, 3, 1, 2)),
    IMAGE,
    a=conv(3, 8),
    b=conv(6, 4),
    w=par(8, 6),
    free=f"{AB} w:0 w:1",
)
case(
    "product bilinear",
    lambda m, x: m.b(m.l((y := m.a(x)).mean((2, 3)), y.amax((2, 3)))[..., None, None]),
    IMAGE,
    a=conv(3, 8),
    b=conv(6, 4),
    l=lambda: nn.Bilinear(8, 8, 6),
    free=f"{AB} l.weight:0 l.weight:1 l.bias:0",
)
case(
    "bag of embeddings",
    lambda m, x: m.b(m.a(x) * m.e(torch.tensor([[0, 1, 3]]))[..., None, None]),
    IMAGE,
    **A,
    e=lambda: nn.EmbeddingBag(5, 8),
    free=f"{AB} e.weight:1",
    fixed="e.weight:0",
)
case(
    "product of three",
    lambda m, x: m.b(torch.einsum("bi,oij,bj->bo", (y := m.a(x)).mean((2, 3)), m.w, y.amax((2, 3)))[..., None, None]),
    IMAGE,
    a=conv(3, 8),
    b=conv(6, 4),
    w=par(6, 8, 8),
    free=f"{AB} w:0 w:1 w:2",
)

# ---- filters of every channel, and what else a sweep over PyTorch's modules met
for name, filtered in {
    "repeated": lambda m, x: F.conv2d(x, m.d.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1], padding=1),
    "expanded": lambda m, x: F.conv2d(x, m.d.expand(x.shape[1], 1, 3, 3), groups=x.shape[1], padding=1),
    "tiled": lambda m, x: F.conv2d(x, torch.tile(m.d, (x.shape[1], 1, 1, 1)), groups=x.shape[1], padding=1),
}.items():
    case(
        f"one filter {name}",
        lambda m, x, f=filtered: m.b(f(m, m.a(x))),
        IMAGE,
        **A,
        d=lambda: nn.Buffer(torch.randn(1, 1, 3, 3)),
        free=AB,
    )
case(
    "a filter each",
    lambda m, x: m.b(F.conv2d(y := m.a(x), m.d, groups=y.shape[1], padding=1)),
    IMAGE,
    **A,
    d=lambda: nn.Buffer(torch.randn(8, 1, 3, 3)),
    free=f"{AB} d:0",
)
between("log of a sigmoid", lambda x: F.logsigmoid(x))
between("under vmap", lambda x: torch.vmap(lambda row: row.sin() * row.cumsum(-1))(x))
between(
    "fractional pool",
    lambda x: F.fractional_max_pool2d(
        x, 2, output_size=3, _random_samples=x.mean((2, 3))[..., None].expand(-1, -1, 2).sigmoid() * 0.9
    ),
)


# ---- over several axes that change
def outer(m: Any, x: Tensor) -> Tensor:
    return m.a(x).unsqueeze(-1) * m.c(x).unsqueeze(-2)


for name, run in {
    "sum": lambda y: y.sum((-1, -2)),
    "mean": lambda y: y.mean(dim=[2, 3]),
    "norm": lambda y: torch.linalg.vector_norm(y, dim=(2, 3)),
    "amax": lambda y: y.amax((2, 3)),
    "logsumexp": lambda y: torch.logsumexp(y, (-2, -1)),
}.items():
    case(f"{name} over two axes", lambda m, x, run=run: x * run(outer(m, x)).unsqueeze(-1), TOKENS, a=lin(8, 12), c=lin(8, 6),
         free="a.weight:0 c.weight:0")  # fmt: skip
    case(f"{name} of everything", lambda m, x, run=run: x * run(outer(m, x)).mean(), (1, 1, 8), a=lin(8, 12), c=lin(8, 6),
         free="a.weight:0 c.weight:0")  # fmt: skip


def modulated(m: Any, x: Tensor) -> Tensor:
    """A convolution whose weights are scaled for each example, and brought back to norm 1."""
    b = x.shape[0]
    w = m.w.unsqueeze(0) * m.s(x.mean((2, 3)))[:, None, :, None, None]
    w = (w * torch.rsqrt(w.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)).flatten(0, 1)
    y = F.conv2d(m.a(x).reshape(1, -1, *x.shape[2:]), w, padding=1, groups=b)
    return m.b(y.view(b, -1, *y.shape[2:]))


case("modulated convolution", modulated, (2, 3, 6, 6), a=conv(3, 8, 3), s=lin(3, 8), w=par(10, 8, 3, 3), b=conv(10, 4),
     free="a.weight:0 s.weight:0 w:0 w:1 b.weight:1")  # fmt: skip
