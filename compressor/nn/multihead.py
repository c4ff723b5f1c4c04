"""``nn.MultiheadAttention`` whose heads, head dimensions and embedding can have any size.

PyTorch's module takes the width of its queries, keys and values to be the embedding width, so it cannot lose a head.
``NarrowAttention`` is the same module, with the same parameters under the same names, that keeps these widths apart:
queries and keys have ``qk_width``, values ``v_width``, both split over ``num_heads``. An ordinary module becomes one,
and back, by a change of class; at full size both compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.nn.walk import every_module

WIDTHS = ("qk_width", "v_width")


class NarrowAttention(nn.MultiheadAttention):
    """Shapes: queries (B, L, E), keys (B, S, kdim), values (B, S, vdim); batch second unless ``batch_first``, or none.

    ``in_proj_weight`` holds ``qk_width`` rows for queries, as many for keys, then ``v_width`` rows for values.
    """

    qk_width: int
    v_width: int

    @property
    def _qkv_same_embed_dim(self) -> bool:
        return False  # asked by PyTorch's fused kernels, which assume PyTorch's widths

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention.forward``."""
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint about attn_mask and needs it; pass the mask too")
        batched = query.dim() == 3
        if batched and self.batch_first:
            q, k, v = self._projected(query, key, value)
        else:
            axis = 1 if batched else 0
            same = query is key and key is value
            first = query.transpose(0, axis) if batched else query.unsqueeze(0)
            others = [x.transpose(0, axis) if batched else x.unsqueeze(0) for x in (() if same else (key, value))]
            q, k, v = self._projected(first, *(others or (first, first)))
            if not batched and key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        q, k, v = (torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        mask = self._mask(q, k.shape[2], attn_mask, key_padding_mask)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            weights = F.dropout(F.softmax(scores if mask is None else scores + mask, -1), dropout, self.training)
            mixed = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        y = F.linear(mixed.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return (y if self.batch_first else y.transpose(0, 1)), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        widths = [self.qk_width, self.qk_width, self.v_width]
        bias = self.in_proj_bias
        if self.in_proj_weight is not None and query is key and key is value:
            q, k, v = torch.split(F.linear(query, self.in_proj_weight, bias), widths, dim=-1)
            return q, k, v
        if self.in_proj_weight is not None:
            weights: Any = torch.split(self.in_proj_weight, widths)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases: Any = (None, None, None) if bias is None else torch.split(bias, widths)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        return q, k, v

    def _mask(self, q: Tensor, keys: int, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
        """Both masks as one to be added to scores (B, H, L, S).

        Sizes are spelt out, as PyTorch's module does: a mask made of lengths has a size that only values tell, and an
        exporter has to learn that it is that of the keys.
        """
        found: Tensor | None = None
        if attn_mask is not None:
            found = _additive(attn_mask, q)
            lead = (q.shape[0], self.num_heads) if found.dim() == 3 else ()
            found = found.reshape(*lead, q.shape[2], keys)
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q).reshape(q.shape[0], 1, 1, keys)
            found = padding if found is None else found + padding
        return found


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype is torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
    return mask.to(like.dtype)


def can_narrow(module: nn.Module) -> bool:
    """Whether this is PyTorch's own module, without the extra keys and values that it can append."""
    return type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn


def narrow_(module: nn.Module) -> None:
    """Change the class of an ``nn.MultiheadAttention``, at its full size."""
    for name in WIDTHS:
        module.__dict__[name] = module.__dict__["embed_dim"]
    module.__class__ = NarrowAttention


@contextmanager
def narrowed(model: nn.Module) -> Iterator[None]:
    """Every attention of PyTorch's is a ``NarrowAttention`` inside."""
    changed = [module for module in every_module(model) if can_narrow(module)]
    for module in changed:
        narrow_(module)
    try:
        yield
    finally:
        for module in changed:
            module.__class__ = nn.MultiheadAttention
            for name in WIDTHS:
                del module.__dict__[name]
