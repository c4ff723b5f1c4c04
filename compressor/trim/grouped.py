"""A product in groups, as ``torch.nn.functional.grouped_mm`` takes it, in any precision: its kernel has no float64."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def grouped_mm(
    mat_a: Tensor,
    mat_b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Rows of a with a matrix of b each, or columns of b with a matrix of a, or a sum cut into one per group.

    Args:
        mat_a: shape (m, k) or (groups, m, k).
        mat_b: shape (k, n) or (groups, k, n).
        offs: where each group ends on the axis that is cut; none where both have groups. What lies behind is zero.
        bias: shape (groups, n), added to every row of its group.
    """
    if offs is None:
        y = mat_a @ mat_b
        return y if bias is None else y + bias.unsqueeze(-2)
    ends = [0, *offs.tolist()]
    parts = [slice(start, end) for start, end in pairwise(ends)]
    if mat_a.dim() == mat_b.dim() == 2:
        return torch.stack([mat_a[:, part] @ mat_b[part] for part in parts])
    along = 0 if mat_a.dim() == 2 else 1
    whole = mat_a.shape[0] if along == 0 else mat_b.shape[1]
    found = []
    for i, part in enumerate(parts):
        y = mat_a[part] @ mat_b[i] if along == 0 else mat_a[i] @ mat_b[:, part]
        found.append(y if bias is None else y + (bias[i] if along == 0 else bias[i][:, None]))
    rest = list(found[0].shape)
    rest[along] = whole - ends[-1]
    return torch.cat([*found, found[0].new_zeros(rest)], along)
