"""Temporal convolutional networks: Bai, Kolter and Koltun, "An Empirical Evaluation of Generic Convolutional and
Recurrent Networks for Sequence Modeling", 2018.

    block   ReLU(shortcut(x) + layer2(layer1(x)))
    layer   dropout(ReLU(BatchNorm(dilated convolution(x))))
    head    a prediction (``backbones.heads``)

The dilation doubles from block to block: 1, 2, 4, 8 ... A shortcut is a 1x1 convolution where the channels change, and
the identity elsewhere. Two things differ from the paper:

- Convolutions are padded on both sides, not on the left with the surplus cut off on the right. Nothing here is
  forecast, so nothing has to be causal; and any other kernel or dilation with such padding gives an output of the same
  length, so that a search may replace every convolution by itself. The head takes the mean over positions, not the last
  one, for the same reason.
- BatchNorm stands where the paper has weight normalisation. That computes a weight anew in every step from two other
  parameters, so that there is no plain convolution to trim or to replace; BatchNorm scales outputs instead, also by
  channel, and is folded into the convolution when the network is exported.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.backbones.heads import draw_convolutions_, head, require_counts, require_share
from compressor.errors import UsageError


class TemporalBlock(nn.Module):
    """Two dilated convolutions around a shortcut, (B, c_in, L) to (B, c, L)."""

    def __init__(self, in_channels: int, channels: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv1 = nn.Conv1d(in_channels, channels, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if in_channels == channels else nn.Conv1d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(F.relu(self.bn1(self.conv1(x))))
        out = self.dropout(F.relu(self.bn2(self.conv2(out))))
        return F.relu(out + self.shortcut(x))


class TCN(nn.Module):
    """A temporal convolutional network.

    Args:
        blocks: residual blocks; a prediction sees ``1 + 2 (kernel - 1) (2 ** blocks - 1)`` samples.
        channels: width of all of them.
        kernel: size of the kernels, odd.
        num_classes: outputs; per position with ``dense``.
        in_channels: channels of the signal.
        dense: predict at every position instead of once.
        dropout: share of the values behind every convolution that is dropped in training.

    Raises:
        UsageError: a size below 1, an even kernel, or a dropout outside of [0, 1).
    """

    def __init__(
        self,
        blocks: int = 8,
        channels: int = 25,
        kernel: int = 7,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        dense: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_counts(blocks=blocks, channels=channels, kernel=kernel, num_classes=num_classes)
        require_counts(in_channels=in_channels)
        require_share(dropout)
        if kernel % 2 == 0:
            raise UsageError(f"kernel must be odd, to be padded alike on both sides, not {kernel}.")
        self.input_shape = (in_channels, 1024)
        inputs = (in_channels, *(channels,) * (blocks - 1))
        self.blocks = nn.Sequential(*(TemporalBlock(c, channels, kernel, 2**i, dropout) for i, c in enumerate(inputs)))
        self.head = head(channels, num_classes, dims=1, dense=dense)
        draw_convolutions_(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of signals (B, in_channels, L); (B, num_classes, L) with ``dense``."""
        logits: Tensor = self.head(self.blocks(x))
        return logits


def tcn(
    num_classes: int = 10,
    in_channels: int = 1,
    dense: bool = False,
    channels: int = 25,
    blocks: int = 8,
    kernel: int = 7,
    dropout: float = 0.0,
) -> TCN:
    """A TCN of the size that the paper has for sequential MNIST: 8 blocks of 25 channels, kernels of 7."""
    return TCN(
        blocks,
        channels,
        kernel,
        num_classes=num_classes,
        in_channels=in_channels,
        dense=dense,
        dropout=dropout,
    )
