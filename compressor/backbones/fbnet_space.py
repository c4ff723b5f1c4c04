"""The FBNet search space as FiGS searches it (section 3.3, figure 1b, appendix), on the stages of Wu et al., "FBNet:
Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture Search", 2019, table 1.

    stem    3x3 convolution, BatchNorm, ReLU
    block   x + (k3(x) + k5(x)), without ``x +`` where shapes change
    k3, k5  1x1 convolution to six times the channels, ReLU, depthwise 3x3 or 5x5, ReLU, 1x1 convolution
    head    1x1 convolution, ReLU, the mean over positions and a linear layer

Redundant operators are left out, as the paper does: a search over channels finds smaller expansions in the largest one,
and there are no grouped convolutions. So two operators are left of FBNet's nine, and *skip*: where a whole block goes,
its input is left. The operators are summed (additive aggregator), and one or both can go, but not both where the block
has no shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.backbones.heads import PointHead, draw_convolutions_, require_counts
from compressor.errors import UsageError

STEM, LAST = 16, 1504
STAGES = ((16, 1), (24, 4), (32, 4), (64, 4), (112, 4), (184, 4), (352, 1))
"""Channels and blocks of each stage."""
CIFAR_STRIDES = (1, 1, 1, 2, 2, 1, 2, 1)
"""Of the stem and of each stage."""
IMAGENET_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
EXPANSION = 6
KERNELS = (3, 5)


class Operator(nn.Module):
    """An inverted bottleneck without a shortcut, (B, c_in, H, W) to (B, c, H/stride, W/stride)."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, expansion: int = EXPANSION) -> None:
        super().__init__()
        wide = expansion * in_channels
        self.expand = nn.Conv2d(in_channels, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.project = nn.Conv2d(wide, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn2(self.depthwise(F.relu(self.bn1(self.expand(x))))))
        out: Tensor = self.bn3(self.project(inner))
        return out


class MixedBlock(nn.Module):
    """Operators on one input, summed; with an identity shortcut if shapes stay, (B, c_in, H, W) to (B, c, ...)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and in_channels == channels
        self.k3, self.k5 = (Operator(in_channels, channels, kernel, stride) for kernel in KERNELS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.k3(x) + self.k5(x)
        return x + out if self.residual else out


class FBNetSpace(nn.Module):
    """The whole supernetwork.

    Args:
        stages: channels and blocks of each.
        strides: of the stem and of each stage; the first block of a stage has it.
        num_classes: outputs of the linear layer.
        in_channels: channels of the input image.
        width: factor on all numbers of channels, of which one at least is left.
        size: height and width of the images that the network is meant for; others work, too.

    Raises:
        UsageError: a size below 1, or a width that is not positive.
    """

    def __init__(
        self,
        stages: Sequence[tuple[int, int]] = STAGES,
        strides: Sequence[int] = CIFAR_STRIDES,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        width: float = 1.0,
        size: int = 32,
    ) -> None:
        super().__init__()
        require_counts(num_classes=num_classes, in_channels=in_channels, stages=len(stages))
        for channels, depth in stages:
            require_counts(channels=channels, depth=depth)
        if not width > 0:
            raise UsageError(f"width must be above 0, not {width}.")
        if len(strides) != len(stages) + 1:
            raise UsageError(f"{len(stages)} stages and a stem need {len(stages) + 1} strides, not {len(strides)}.")

        def scaled(channels: int) -> int:
            return max(1, round(channels * width))

        self.input_shape = (in_channels, size, size)
        channels = scaled(STEM)
        self.stem = nn.Conv2d(in_channels, channels, 3, strides[0], 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(channels)
        made = []
        for (out, depth), stride in zip(stages, strides[1:], strict=True):
            inputs = (channels, *(scaled(out),) * (depth - 1))
            blocks = (MixedBlock(c, scaled(out), 1 if i else stride) for i, c in enumerate(inputs))
            made.append(nn.Sequential(*blocks))
            channels = scaled(out)
        self.stages = nn.Sequential(*made)
        self.last = nn.Conv2d(channels, scaled(LAST), 1, bias=False)
        self.last_bn = nn.BatchNorm2d(scaled(LAST))
        self.head = PointHead(scaled(LAST), num_classes)
        draw_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        x = self.stages(F.relu(self.stem_bn(self.stem(x))))
        logits: Tensor = self.head(F.relu(self.last_bn(self.last(x))))
        return logits


def fbnet(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> FBNetSpace:
    """The FBNet supernetwork of FiGS for images of 32x32."""
    return FBNetSpace(num_classes=num_classes, in_channels=in_channels, width=width)


def fbnet_imagenet(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0) -> FBNetSpace:
    """The FBNet supernetwork of FiGS for images of 224x224."""
    return FBNetSpace(strides=IMAGENET_STRIDES, num_classes=num_classes, in_channels=in_channels, width=width, size=224)
