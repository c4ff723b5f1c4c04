"""Residual networks for signals: Wang, Yan and Oates, "Time Series Classification from Scratch with Deep Neural
Networks: A Strong Baseline", 2017, in the form that DASH searches in (Shen et al., 2022, appendix A.5.1).

    block   shortcut(x) + layer3(layer2(layer1(x))), kernels of 8, 5 and 3
    layer   ReLU(BatchNorm(dropout(convolution(x))))
    head    a prediction (``backbones.heads``)

Every convolution keeps the length. A shortcut is a 1x1 convolution with BatchNorm where the channels change, and the
identity elsewhere. Wang et al. have 64, 128 and 128 channels; DASH has fewer where there are few classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.backbones.heads import draw_convolutions_, head, require_counts, require_share

_WIDEST = 64


class WideBlock1d(nn.Module):
    """A residual block of three convolutions, (B, c_in, L) to (B, c, L)."""

    def __init__(self, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        # Kernels of even size: "same" pads one sample more on the right.
        self.conv1 = nn.Conv1d(in_channels, channels, 8, padding="same", bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, 5, padding="same", bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.conv3 = nn.Conv1d(channels, channels, 3, padding="same", bias=False)
        self.bn3 = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv1d(in_channels, channels, 1, bias=False), nn.BatchNorm1d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.dropout(self.conv1(x))))
        out = F.relu(self.bn2(self.dropout(self.conv2(out))))
        out = F.relu(self.bn3(self.dropout(self.conv3(out))))
        total: Tensor = out + self.shortcut(x)
        return total


class WideResNet1d(nn.Module):
    """A residual network for signals with a block for each of ``widths``.

    Args:
        widths: channels of the blocks.
        num_classes: outputs; per position with ``dense``.
        in_channels: channels of the signal.
        dense: predict at every position instead of once.
        dropout: share of a convolution's results that is dropped in training.

    Raises:
        UsageError: a size below 1, or a dropout outside of [0, 1).
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 128),
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        dense: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_counts(blocks=len(widths), num_classes=num_classes, in_channels=in_channels)
        require_counts(width=min(widths))
        require_share(dropout)
        self.input_shape = (in_channels, 1024)
        inputs = (in_channels, *widths)
        self.blocks = nn.Sequential(*(WideBlock1d(i, c, dropout) for i, c in zip(inputs, widths, strict=False)))
        self.head = head(widths[-1], num_classes, dims=1, dense=dense)
        draw_convolutions_(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of signals (B, in_channels, L); (B, num_classes, L) with ``dense``."""
        logits: Tensor = self.head(self.blocks(x))
        return logits


def width_for(num_classes: int) -> int:
    """DASH's width: 4 channels below 10 classes, 16 below 20, and 64 from there on."""
    return int(min(4 ** (num_classes // 10 + 1), _WIDEST))


def wrn1d(
    num_classes: int = 10,
    in_channels: int = 1,
    dense: bool = False,
    width: int | None = None,
    dropout: float = 0.0,
) -> WideResNet1d:
    """The 1D WRN of DASH: three blocks of ``width`` channels, by default what ``width_for`` says."""
    require_counts(num_classes=num_classes)
    channels = width_for(num_classes) if width is None else width
    return WideResNet1d((channels,) * 3, num_classes=num_classes, in_channels=in_channels, dense=dense, dropout=dropout)
