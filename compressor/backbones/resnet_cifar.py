"""Residual networks for CIFAR: He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2.

Depth ``6 n + 2``: a 3x3 convolution, then three stages of ``n`` basic blocks with 16, 32 and 64 channels, then global
average pooling and a linear layer. Shortcuts have no parameters (option A of the paper): where a stage halves the
resolution, every second pixel is kept and the new channels are zeros, half of them before and half after the old ones.
Any input size from 1x1 on works; the reference is 3x32x32.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.backbones.heads import draw_convolutions_
from compressor.errors import UsageError

_WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a parameter-free shortcut, (B, c_in, H, W) to (B, c, H/stride, W/stride)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        # Zero channels before and after the old ones; none where the shortcut is the identity. Two numbers, because a
        # compressed network may keep more of them on one side.
        self.shortcut_pad = ((channels - in_channels) // 2, (channels - in_channels) // 2)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if any(self.shortcut_pad):
            before, after = self.shortcut_pad
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, after))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """A CIFAR residual network of depth ``6 * blocks_per_stage + 2``.

    Args:
        blocks_per_stage: basic blocks in each of the three stages.
        num_classes: outputs of the linear layer.
        in_channels: channels of the input image.
    """

    def __init__(self, blocks_per_stage: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if min(blocks_per_stage, num_classes, in_channels) < 1:
            raise UsageError(
                "blocks_per_stage, num_classes and in_channels must each be at least 1, "
                f"but got {blocks_per_stage}, {num_classes} and {in_channels}."
            )
        self.input_shape = (in_channels, 32, 32)
        self.conv1 = nn.Conv2d(in_channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], blocks_per_stage, stride=1)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks_per_stage, stride=2)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks_per_stage, stride=2)
        self.linear = nn.Linear(_WIDTHS[2], num_classes)
        draw_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    rest = [BasicBlock(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def resnet20_cifar(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-20 for CIFAR: 41 M multiply-adds and 0.27 M parameters at 3x32x32."""
    return CifarResNet(3, num_classes, in_channels)


def resnet32_cifar(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-32 for CIFAR."""
    return CifarResNet(5, num_classes, in_channels)


def resnet44_cifar(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-44 for CIFAR."""
    return CifarResNet(7, num_classes, in_channels)


def resnet56_cifar(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-56 for CIFAR: 126 M multiply-adds and 0.86 M parameters at 3x32x32."""
    return CifarResNet(9, num_classes, in_channels)


def resnet110_cifar(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-110 for CIFAR."""
    return CifarResNet(18, num_classes, in_channels)
