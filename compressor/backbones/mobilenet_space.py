"""The largest networks of three MobileNet search spaces: "Learning Search Space Boundaries Improves Supernet Training",
tables 1 and 2 and appendix A.1.

    stem    convolution 5x5, BatchNorm, ReLU
    block   x + project(squeeze(act(depthwise(act(expand(x))))))
    head    the mean over positions and a linear layer

Seven stages of inverted residual blocks. ``expand`` and ``project`` are 1x1 convolutions, ``depthwise`` is 5x5, each
with BatchNorm. The first block of a stage changes width and resolution and has no shortcut; the others have the
identity. So a search over widths, depths and kernels finds the paper's dimensions:

- ``mobilenet_v2_space`` (table 1): 30 widths, 5 depths of up to four blocks and 8 kernels, 43 in all.
- ``mobilenet_v3_space`` (table 2): the same, and for each stage squeeze-and-excite or none, and ReLU or Swish: 57.
- ``mobilenet_width`` (appendix A.1): 25 widths, at 1, 2, 3, 4, 3, 3 and 1 blocks and kernels of 3x3.

The activation of the stem and the one within squeeze-and-excite are functions and no modules: they are no dimensions.
The paper trains on images of 32x32, which three of the stages halve. The variants for ImageNet have the strides of
MobileNetV2 (Sandler et al., 2018, table 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.backbones.heads import PointHead, draw_convolutions_, require_counts, require_share
from compressor.errors import UsageError

STEM = 32
"""Channels of the stem in the largest network."""
REDUCTION = 4
"""Squeeze-and-excite computes in so many times fewer channels (Howard et al., 2019, section 5.3)."""


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: channels between ``expand`` and ``project``, channels out, and how many blocks."""

    intermediate: int
    output: int
    depth: int


STAGES = (
    Stage(96, 16, 1),
    Stage(144, 24, 4),
    Stage(144, 24, 4),
    Stage(384, 64, 4),
    Stage(576, 96, 4),
    Stage(960, 160, 4),
    Stage(1920, 320, 1),
)
WIDTH_DEPTHS = (1, 2, 3, 4, 3, 3, 1)
CIFAR_STRIDES = (1, 1, 1, 2, 2, 1, 2, 1)
"""Of the stem and of each stage."""
IMAGENET_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)


class SqueezeExcite(nn.Module):
    """``x * hardsigmoid(expand(relu(reduce(mean of x))))``, a factor per channel; (B, c, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.expand(scale))


class InvertedResidual(nn.Module):
    """One block, (B, c_in, H, W) to (B, c, H/stride, W/stride); with an identity shortcut if ``residual``."""

    def __init__(
        self,
        in_channels: int,
        intermediate: int,
        channels: int,
        kernel: int,
        stride: int,
        *,
        activation: Callable[[], nn.Module],
        squeeze: bool,
        residual: bool,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.expand = nn.Conv2d(in_channels, intermediate, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(intermediate)
        self.act1 = activation()
        self.depthwise = nn.Conv2d(
            intermediate, intermediate, kernel, stride, kernel // 2, groups=intermediate, bias=False
        )
        self.bn2 = nn.BatchNorm2d(intermediate)
        self.act2 = activation()
        self.squeeze = SqueezeExcite(intermediate) if squeeze else nn.Identity()
        self.project = nn.Conv2d(intermediate, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act1(self.bn1(self.expand(x)))
        inner = self.squeeze(self.act2(self.bn2(self.depthwise(inner))))
        out: Tensor = self.bn3(self.project(inner))
        return x + out if self.residual else out


class MobileNetSpace(nn.Module):
    """A network of inverted residual blocks.

    Args:
        stages: widths and depths.
        strides: of the stem and of each stage.
        kernel: size of the stem's kernel and of all depthwise ones, odd.
        activation: makes the activation modules of the blocks.
        squeeze: whether blocks have squeeze-and-excite.
        num_classes: outputs of the linear layer.
        in_channels: channels of the input image.
        width: factor on all numbers of channels, of which one at least is left.
        dropout: share of the features before the linear layer that are dropped in training; the paper has 0.2.
        size: height and width of the images that the network is meant for; others work, too.

    Raises:
        UsageError: a size below 1, an even kernel, a width that is not positive or a dropout outside of [0, 1).
    """

    def __init__(
        self,
        stages: Sequence[Stage] = STAGES,
        strides: Sequence[int] = CIFAR_STRIDES,
        *,
        kernel: int = 5,
        activation: Callable[[], nn.Module] = nn.ReLU,
        squeeze: bool = False,
        num_classes: int = 10,
        in_channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.0,
        size: int = 32,
    ) -> None:
        super().__init__()
        require_counts(num_classes=num_classes, in_channels=in_channels, kernel=kernel, stages=len(stages))
        for stage in stages:
            require_counts(intermediate=stage.intermediate, output=stage.output, depth=stage.depth)
        require_share(dropout)
        if kernel % 2 == 0:
            raise UsageError(f"kernel must be odd, to be padded alike on all sides, not {kernel}.")
        if not width > 0:
            raise UsageError(f"width must be above 0, not {width}.")
        if len(strides) != len(stages) + 1:
            raise UsageError(f"{len(stages)} stages and a stem need {len(stages) + 1} strides, not {len(strides)}.")

        def scaled(channels: int) -> int:
            return max(1, round(channels * width))

        self.input_shape = (in_channels, size, size)
        channels = scaled(STEM)
        self.stem = nn.Conv2d(in_channels, channels, kernel, strides[0], kernel // 2, bias=False)
        self.stem_bn = nn.BatchNorm2d(channels)
        made = []
        for stage, stride in zip(stages, strides[1:], strict=True):
            blocks = []
            for i in range(stage.depth):
                blocks.append(
                    InvertedResidual(
                        channels,
                        scaled(stage.intermediate),
                        scaled(stage.output),
                        kernel,
                        1 if i else stride,
                        activation=activation,
                        squeeze=squeeze,
                        residual=i > 0,
                    )
                )
                channels = scaled(stage.output)
            made.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*made)
        self.dropout = nn.Dropout(dropout)
        self.head = PointHead(channels, num_classes)
        draw_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        x = self.stages(F.relu(self.stem_bn(self.stem(x))))
        logits: Tensor = self.head(self.dropout(x))
        return logits


def mobilenet_v2_space(
    num_classes: int = 10, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0
) -> MobileNetSpace:
    """The largest network of table 1, for images of 32x32."""
    return MobileNetSpace(num_classes=num_classes, in_channels=in_channels, width=width, dropout=dropout)


def mobilenet_v2_space_imagenet(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0
) -> MobileNetSpace:
    """The largest network of table 1, for images of 224x224."""
    return MobileNetSpace(
        strides=IMAGENET_STRIDES,
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        dropout=dropout,
        size=224,
    )


def mobilenet_v3_space(
    num_classes: int = 10, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0
) -> MobileNetSpace:
    """The largest network of table 2, for images of 32x32."""
    return MobileNetSpace(
        activation=nn.SiLU,
        squeeze=True,
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        dropout=dropout,
    )


def mobilenet_v3_space_imagenet(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0
) -> MobileNetSpace:
    """The largest network of table 2, for images of 224x224."""
    return MobileNetSpace(
        strides=IMAGENET_STRIDES,
        activation=nn.SiLU,
        squeeze=True,
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        dropout=dropout,
        size=224,
    )


def _width_stages() -> tuple[Stage, ...]:
    return tuple(Stage(s.intermediate, s.output, d) for s, d in zip(STAGES, WIDTH_DEPTHS, strict=True))


def mobilenet_width(
    num_classes: int = 10, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0
) -> MobileNetSpace:
    """The largest network of the width-only space (appendix A.1), for images of 32x32."""
    return MobileNetSpace(
        _width_stages(), kernel=3, num_classes=num_classes, in_channels=in_channels, width=width, dropout=dropout
    )


def mobilenet_width_imagenet(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0
) -> MobileNetSpace:
    """The largest network of the width-only space, for images of 224x224."""
    return MobileNetSpace(
        _width_stages(),
        IMAGENET_STRIDES,
        kernel=3,
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        dropout=dropout,
        size=224,
    )
