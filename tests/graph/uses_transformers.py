"""Uses that transformers make of heads and norms: literal widths, shared key heads, norms without parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.tiny import AB, IMAGE, TOKENS, A, T, among, case, lin

# ---- heads of a width that the program writes out
_STREAM = {"e": lin(8, 12), "q": lin(12, 12), "k": lin(12, 12), "v": lin(12, 12), "o": lin(12, 12), "b": lin(12, 4)}


def _attend(m: Any, x: Tensor, heads: Callable[[Tensor], Tensor], merge: Callable[[Tensor], Tensor]) -> Tensor:
    h = m.e(x)
    q, k, v = (heads(f(h)).transpose(1, 2) for f in (m.q, m.k, m.v))
    return m.b(h + m.o(merge(F.scaled_dot_product_attention(q, k, v).transpose(1, 2))))


_SPLITS: dict[str, Callable[[Tensor], Tensor]] = {
    "its width over a literal": lambda y: y.view(y.shape[0], y.shape[1], y.shape[-1] // 3, 3),
    "the rest": lambda y: y.view(*y.shape[:-1], -1, 3),
    "unflatten": lambda y: y.unflatten(-1, (y.size(-1) // 3, 3)),
}
_MERGES: dict[str, Callable[[Tensor], Tensor]] = {
    "the rest": lambda y: y.reshape(y.shape[0], y.shape[1], -1),
    "flatten": lambda y: y.flatten(2),
    "heads times a literal": lambda y: y.reshape(y.shape[0], y.shape[1], y.shape[2] * 3),
}
for split_name, split in _SPLITS.items():
    for merge_name, merge in _MERGES.items():
        case(
            f"literal head width: {split_name}, {merge_name}",
            lambda m, x, split=split, merge=merge: _attend(m, x, split, merge),
            TOKENS,
            **_STREAM,
            free="e.weight:0 q.weight:0 k.weight:0 v.weight:0 o.weight:1 o.weight:0",
        )


def _by_width(m: Any, x: Tensor) -> Tensor:
    h = m.e(x)
    b, t, c = h.shape
    q, k, v = (f(h).view(b, t, c // 3, 3).transpose(1, 2) for f in (m.q, m.k, m.v))
    return m.b(h + m.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c)))


case("literal head width: the stream's over it", _by_width, TOKENS, **_STREAM, free="e.weight:0 q.weight:0 v.weight:0")


# ---- query heads that share key heads
def _shared(
    m: Any, x: Tensor, mask: Callable[[Tensor], Tensor | None] = lambda _: None, *, keywords: bool = False
) -> Tensor:
    q, k, v = (f(x).view(x.shape[0], x.shape[1], -1, m.d).transpose(1, 2) for f in (m.q, m.k, m.v))
    if keywords:
        y = F.scaled_dot_product_attention(query=q, attn_mask=mask(q), value=v, key=k, enable_gqa=True, scale=0.4)
    else:
        y = F.scaled_dot_product_attention(q, k, v, mask(q), enable_gqa=True)
    return m.b(y.transpose(1, 2).flatten(2))


_SHARED = {"q": lin(8, 36), "k": lin(8, 18), "v": lin(8, 18), "b": lin(36, 4), "d": 3}
_FREE = "q.weight:0 k.weight:0 v.weight:0 b.weight:1"
case("shared key heads", _shared, TOKENS, **_SHARED, free=_FREE)
case("shared key heads by keyword", lambda m, x: _shared(m, x, keywords=True), TOKENS, **_SHARED, free=_FREE)
case("shared key heads under a mask", lambda m, x: _shared(m, x, lambda q: q.new_ones(5, 5).tril().bool()), TOKENS,
     **_SHARED, free=_FREE)  # fmt: skip
case("one key head", _shared, TOKENS, **{**_SHARED, "k": lin(8, 3), "v": lin(8, 3)}, free=_FREE)

# ---- norms
for norm in (nn.LayerNorm, nn.RMSNorm):
    short = norm.__name__
    case(f"{short} without parameters", lambda m, x: m.b(m.n(m.a(x))), TOKENS, **T, free=AB,
         n=lambda norm=norm: norm(12, elementwise_affine=False))  # fmt: skip
    for affine in (False, True):
        case(f"{short} of image {affine}", lambda m, x: m.b(m.n(m.a(x))), IMAGE, **A, free=AB,
             n=lambda norm=norm, affine=affine: norm([8, 6, 6], elementwise_affine=affine))  # fmt: skip
        case(f"{short} of tokens too {affine}", lambda m, x: m.b(m.n(m.a(x))), TOKENS, **T, free=AB,
             n=lambda norm=norm, affine=affine: norm([5, 12], elementwise_affine=affine))  # fmt: skip
    case(f"{short} modulated", lambda m, x: m.b((y := m.a(x)) + m.s(y).tanh() * m.n(y)), TOKENS, **T, free=AB,
         n=lambda norm=norm: norm(12, elementwise_affine=False), s=lin(12, 12))  # fmt: skip
for name, function in {
    "layer norm of the last axis": lambda x: F.layer_norm(x, x.shape[-1:]),
    "layer norm of two axes": lambda x: F.layer_norm(input=x, normalized_shape=[x.shape[1], x.shape[2]]),
    "rms norm of the last axis": lambda x: F.rms_norm(x, (x.size(-1),)),
    "rms norm of two axes by keyword": lambda x: F.rms_norm(x, normalized_shape=x.size()[1:], eps=1e-3),
}.items():
    among(name, function)
case("rms norm of a constant", lambda m, x: m.b(F.rms_norm(m.a(x), (12,))), TOKENS, **T, fixed=AB)


# ---- sizes that a forward checks
class Checked(nn.Module):
    """Refuses channels other than its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.channels = how, 12

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "assert":
            assert x.shape[-1] == self.channels
        elif x.ndim != 3 or x.size(2) != (12 if self.how == "literal" else self.channels):
            raise ValueError("not my channels")
        return F.relu(x)


for how in ("assert", "raise"):
    case(f"checked by {how}", lambda m, x: m.b(m.c(m.a(x))), TOKENS, **T, c=lambda how=how: Checked(how), free=AB)
case("checked against a literal", lambda m, x: m.b(m.c(m.a(x))), TOKENS, **T, c=lambda: Checked("literal"), fixed=AB)
