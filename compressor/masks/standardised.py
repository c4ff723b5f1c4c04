"""Layer and RMS norms over what is kept of the normalised axes: differentiable in the mask, and hardly slower.

``y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * w + b``, where both means weigh every element by its share, the mask
over its sum. Written out, a forward and a backward take some thirty passes over ``x``; ``_Standardised`` takes a half.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def standardised(
    x: Tensor, shares: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, *, centred: bool
) -> Tensor:
    """Rows of mean 0, if ``centred``, and mean square 1, scaled and shifted.

    Args:
        x: (rows, n).
        shares: what each element counts for, (n,), of sum 1 (or all 0).
        weight: (n,), of ones if None. bias: (n,), of zeros if None.
    """
    dtype = torch.promote_types(x.dtype, shares.dtype)
    x, shares = x.to(dtype), shares.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        if _by_hand(x):
            return _Standardised.apply(x, shares, weight, bias, eps, centred)  # type: ignore[no-any-return]
        return _composed(x, shares, weight, bias, eps, centred)


def _by_hand(x: Tensor) -> bool:
    """Whether nothing but a plain backward will ask for derivatives, and no compiler looks on."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not _is_transformed(x)
        and forward_ad._current_level < 0
    )


def _is_transformed(tensor: Tensor) -> bool:
    """Whether this runs inside ``torch.func``, or for many gradients at once (``is_grads_batched``): what is written in
    place has no rules there."""
    functorch = torch._C._functorch
    return functorch.maybe_current_level() is not None or functorch.is_legacy_batchedtensor(tensor)


def _composed(
    x: Tensor, shares: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, centred: bool
) -> Tensor:
    mean = (x @ shares).unsqueeze(-1) if centred else 0
    from_mean = x - mean
    y = from_mean * torch.rsqrt((from_mean.square() @ shares).unsqueeze(-1) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


class _Standardised(torch.autograd.Function):
    """``_composed`` with its derivative by hand.

    With G the gradient at the standardised rows u, s the shares and r one over the deviation::

        dx = r (G - s (sum G + u sum(G u)))        ds = -sum over rows (r (sum G) x + u^2 sum(G u) / 2)

    without the sums of G alone where no mean is taken off. That holds where shares sum to 1 or are all 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shares: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        centred: bool,
    ) -> Tensor:
        mean = (x @ shares).unsqueeze(-1) if centred else None
        y = x.clone() if mean is None else x - mean
        scale = torch.rsqrt((y.square() @ shares).unsqueeze(-1) + eps)
        ctx.save_for_backward(x, shares, weight, bias, mean, scale)
        ctx.eps, ctx.centred = eps, centred
        # In place, as fresh memory takes longer to get than to fill.
        y.mul_(scale)
        y = y if weight is None else y.mul_(weight)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, shares, weight, bias, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled() or _is_transformed(gradient):  # somebody differentiates this, or asks often
            return *_composed_backward(ctx, gradient, x, shares, weight, bias), None, None
        for_x, for_shares, for_weight, for_bias = ctx.needs_input_grad[:4]
        unit = x * scale if mean is None else (x - mean).mul_(scale)
        product = gradient * unit
        found = [
            None,
            None,
            product.sum(0) if for_weight else None,
            gradient.sum(0) if for_bias else None,
        ]
        with torch.autocast(x.device.type, enabled=False):
            along = product.sum(-1, keepdim=True) if weight is None else (product @ weight.to(x.dtype)).unsqueeze(-1)
            whole = None
            if mean is not None:
                summed = gradient.sum(-1) if weight is None else gradient @ weight.to(x.dtype)
                whole = summed.unsqueeze(-1)
            if for_shares:
                half = torch.square(unit, out=product).T @ (along[:, 0] / 2)
                found[1] = -half if whole is None else -(half + x.T @ (whole * scale)[:, 0])
        if for_x:
            taken = unit.mul_(along) if whole is None else unit.mul_(along).add_(whole)
            taken.mul_(-shares)
            taken = taken.add_(gradient) if weight is None else taken.addcmul_(gradient, weight)
            found[0] = taken.mul_(scale)
        return *found, None, None


def _composed_backward(
    ctx: Any, gradient: Tensor, x: Tensor, shares: Tensor, weight: Tensor | None, bias: Tensor | None
) -> list[Tensor | None]:
    """The gradients with a history of their own."""
    inputs = [x, shares, weight, bias]
    wanted = [each for each, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed and each is not None]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        y = _composed(x, shares, weight, bias, ctx.eps, ctx.centred)
    found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=again))
    return [
        next(found) if needed and each is not None else None
        for each, needed in zip(inputs, ctx.needs_input_grad, strict=False)
    ]
