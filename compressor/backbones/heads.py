"""What backbones share: heads (one prediction for the whole input, or one at every position), first weights, checks."""

from __future__ import annotations

from torch import Tensor, nn

from compressor.errors import UsageError

CONV = {1: nn.Conv1d, 2: nn.Conv2d}
"""Convolutions by their number of axes."""


class PointHead(nn.Module):
    """The mean over positions and a linear layer, (B, channels, *positions) to (B, num_classes).

    The logits are those of classes that exclude each other and of labels that do not: the loss tells them apart.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(2).mean(2))
        return logits


class DenseHead(nn.Module):
    """The same linear layer at every position, (B, channels, *positions) to (B, num_classes, *positions)."""

    def __init__(self, channels: int, num_classes: int, dims: int) -> None:
        super().__init__()
        self.conv = CONV[dims](channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv(x)
        return logits


def head(channels: int, num_classes: int, *, dims: int, dense: bool) -> nn.Module:
    """The head for features of ``channels`` over ``dims`` axes.

    It matches channels where predictions are ``dense``, as DASH does (Shen et al., 2022, appendix A.8.1).
    """
    return DenseHead(channels, num_classes, dims) if dense else PointHead(channels, num_classes)


def draw_convolutions_(*parts: nn.Module) -> None:
    """Draw the weights of all convolutions of a network's parts anew, as He et al. (2015) do for ReLU."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def require_counts(**counts: int) -> None:
    """Raise ``UsageError`` unless every count is at least 1."""
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} must be at least 1, not {count}.")


def require_share(dropout: float) -> None:
    """Raise ``UsageError`` unless the share of values to drop is from 0 to below 1."""
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout must be at least 0 and below 1, not {dropout}.")
