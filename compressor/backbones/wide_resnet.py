"""Wide residual networks: Zagoruyko and Komodakis, "Wide Residual Networks", 2016, in the form that DASH searches in
(Shen et al., "Efficient Architecture Search for Diverse Tasks", 2022, appendix A.5.1).

    stem    3x3 convolution of 16 channels
    block   shortcut(x) + conv2(ReLU(BatchNorm(dropout(conv1(ReLU(BatchNorm(x)))))))
    head    ReLU(BatchNorm(x)), then a prediction (``backbones.heads``)

Depth ``6 n + 4``: three stages of ``n`` blocks with 16, 32 and 64 channels times the width. The first block of the
second and third stage halves the resolution, in its second convolution, as in DASH's table. A shortcut is a 1x1
convolution where shapes change, and the identity elsewhere. For dense predictions nothing is halved.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.backbones.heads import draw_convolutions_, head, require_counts, require_share

_STEM = 16
_WIDTHS = (16, 32, 64)
_STRIDES = (1, 2, 2)


class WideBlock(nn.Module):
    """A pre-activation block, (B, c_in, H, W) to (B, c, H/stride, W/stride)."""

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        out = self.conv2(F.relu(self.bn2(out)))
        total: Tensor = out + self.shortcut(x)
        return total


class WideResNet(nn.Module):
    """A wide residual network of depth ``6 * blocks_per_stage + 4``.

    Args:
        blocks_per_stage: blocks in each of the three stages.
        width: how many times as wide as 16, 32 and 64 channels the stages are.
        num_classes: outputs; per position with ``dense``.
        in_channels: channels of the input.
        dense: predict at every position instead of once, without loss of resolution.
        dropout: share of the values between the convolutions of a block that are dropped in training.

    Raises:
        UsageError: a size below 1, or a dropout outside of [0, 1).
    """

    def __init__(
        self,
        blocks_per_stage: int = 2,
        width: int = 4,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        dense: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_counts(blocks_per_stage=blocks_per_stage, width=width, num_classes=num_classes, in_channels=in_channels)
        require_share(dropout)
        self.input_shape = (in_channels, 32, 32)
        widths = [_STEM, *(width * channels for channels in _WIDTHS)]
        strides = (1, 1, 1) if dense else _STRIDES
        self.conv1 = nn.Conv2d(in_channels, _STEM, 3, padding=1, bias=False)
        self.layer1, self.layer2, self.layer3 = (
            _stage(widths[i], widths[i + 1], blocks_per_stage, strides[i], dropout) for i in range(3)
        )
        self.bn = nn.BatchNorm2d(widths[-1])
        self.head = head(widths[-1], num_classes, dims=2, dense=dense)
        draw_convolutions_(self.conv1, self.layer1, self.layer2, self.layer3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W); (B, num_classes, H, W) with ``dense``."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Tensor = self.head(F.relu(self.bn(x)))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int, dropout: float) -> nn.Sequential:
    first = WideBlock(in_channels, channels, stride, dropout)
    return nn.Sequential(first, *(WideBlock(channels, channels, 1, dropout) for _ in range(blocks - 1)))


def wrn_16_1(num_classes: int = 10, in_channels: int = 3, dense: bool = False, dropout: float = 0.0) -> WideResNet:
    """WRN-16-1: 0.17 M parameters; what DASH searches with."""
    return WideResNet(2, 1, num_classes=num_classes, in_channels=in_channels, dense=dense, dropout=dropout)


def wrn_16_4(num_classes: int = 10, in_channels: int = 3, dense: bool = False, dropout: float = 0.0) -> WideResNet:
    """WRN-16-4: 2.75 M parameters; what DASH trains in the end."""
    return WideResNet(2, 4, num_classes=num_classes, in_channels=in_channels, dense=dense, dropout=dropout)
