"""The One-Shot search space as FiGS searches it (figure 1a, appendix "Search Space Details"), on the instantiation of
Bender et al., "Understanding and Simplifying One-Shot Architecture Search", 2018, section 3.4.

    stem     3x3 convolution, BatchNorm
    cell     four blocks, densely connected: a block reads the cell's input and all blocks before it in the cell
    block    a 1x1 convolution of what it reads, then operators side by side, then their aggregate
    head     the mean over positions and a linear layer

Eight cells, 64 channels in the first two. Before every other cell the resolution is halved by average pooling of
stride 2, and the channels double. Operators are separable convolutions, each two in a row: 3x3, 5x5, 7x7, and 1x7 then
7x1; and one 1x1 convolution. Pooling operators of the original have no filters to learn and are left out; papers do
not say more of the connections, so what a block reads is concatenated, and so is what a cell gives.

The concat aggregator concatenates what the operators give and has a 1x1 convolution of it. Operators may then be of any
width. The additive one sums, and all of a block have one width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.backbones.heads import PointHead, draw_convolutions_, require_counts
from compressor.errors import UsageError

CELLS, BLOCKS, WIDTH = 8, 4, 64
AGGREGATORS = ("concat", "add")

Size = tuple[int, int]


class Separable(nn.Module):
    """ReLU, depthwise and pointwise convolution and BatchNorm for each of ``kernels``; shapes stay as they are."""

    def __init__(self, channels: int, kernels: Sequence[Size]) -> None:
        super().__init__()
        self.depthwise = nn.ModuleList(
            nn.Conv2d(channels, channels, k, padding=(k[0] // 2, k[1] // 2), groups=channels, bias=False)
            for k in kernels
        )
        self.pointwise = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in kernels)
        self.bn = nn.ModuleList(nn.BatchNorm2d(channels) for _ in kernels)

    def forward(self, x: Tensor) -> Tensor:
        for depthwise, pointwise, bn in zip(self.depthwise, self.pointwise, self.bn, strict=True):
            x = bn(pointwise(depthwise(F.relu(x))))
        return x


class Pointwise(nn.Module):
    """ReLU, 1x1 convolution and BatchNorm, (B, c_in, H, W) to (B, c, H, W)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(F.relu(x)))
        return out


OPERATORS: dict[str, Callable[[int], nn.Module]] = {
    "sep3x3": lambda channels: Separable(channels, ((3, 3), (3, 3))),
    "sep5x5": lambda channels: Separable(channels, ((5, 5), (5, 5))),
    "sep7x7": lambda channels: Separable(channels, ((7, 7), (7, 7))),
    "sep1x7_7x1": lambda channels: Separable(channels, ((1, 7), (7, 1))),
    "conv1x1": lambda channels: Pointwise(channels, channels),
}


class Block(nn.Module):
    """Operators on what came before, several (B, c_i, H, W) to one (B, c, H, W)."""

    def __init__(self, in_channels: int, channels: int, operators: Sequence[str], aggregator: str) -> None:
        super().__init__()
        self.reduce = Pointwise(in_channels, channels)
        self.operators = nn.ModuleDict({name: OPERATORS[name](channels) for name in operators})
        self.concat = aggregator == "concat"
        if self.concat:
            self.aggregate = Pointwise(len(operators) * channels, channels)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        x = self.reduce(torch.cat(inputs, 1))
        outputs = [operator(x) for operator in self.operators.values()]
        if self.concat:
            mixed: Tensor = self.aggregate(torch.cat(outputs, 1))
            return mixed
        total: Tensor = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total


class Cell(nn.Module):
    """Densely connected blocks, (B, c_in, H, W) to (B, blocks * c, H, W)."""

    def __init__(self, in_channels: int, channels: int, blocks: int, operators: Sequence[str], aggregator: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(in_channels + i * channels, channels, operators, aggregator) for i in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for block in self.blocks:
            found.append(block(found))
        return torch.cat(found[1:], 1)


class OneShot(nn.Module):
    """The whole supernetwork.

    Args:
        cells: how many; before every other one but the first the resolution is halved and the width doubles.
        blocks: of each cell.
        width: channels of the blocks of the first two cells.
        operators: of each block, names in ``OPERATORS``.
        aggregator: ``"concat"`` or ``"add"``.
        strides: of the convolutions of the stem.
        num_classes: outputs of the linear layer.
        in_channels: channels of the input image.
        size: height and width of the images that the network is meant for; others work, too.

    Raises:
        UsageError: a size below 1, or an operator or aggregator that there is not.
    """

    def __init__(
        self,
        cells: int = CELLS,
        blocks: int = BLOCKS,
        width: int = WIDTH,
        *,
        operators: Sequence[str] = tuple(OPERATORS),
        aggregator: str = "concat",
        strides: Sequence[int] = (1,),
        num_classes: int = 10,
        in_channels: int = 3,
        size: int = 32,
    ) -> None:
        super().__init__()
        require_counts(cells=cells, blocks=blocks, width=width, num_classes=num_classes, in_channels=in_channels)
        require_counts(operators=len(operators), strides=len(strides))
        unknown = [name for name in operators if name not in OPERATORS]
        if unknown:
            raise UsageError(f"There is no operator {unknown[0]!r}; known are {', '.join(OPERATORS)}.")
        if aggregator not in AGGREGATORS:
            raise UsageError(f"There is no aggregator {aggregator!r}; known are {', '.join(AGGREGATORS)}.")
        self.input_shape = (in_channels, size, size)
        stem: list[nn.Module] = []
        channels = in_channels
        for i, stride in enumerate(strides):
            stem += [nn.ReLU()] if i else []
            stem += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)]
            channels = width
        self.stem = nn.Sequential(*stem)
        made: list[nn.Module] = []
        for i in range(cells):
            if i and i % 2 == 0:
                width *= 2
                made.append(nn.AvgPool2d(2, ceil_mode=True))
            made.append(Cell(channels, width, blocks, operators, aggregator))
            channels = blocks * width
        self.cells = nn.Sequential(*made)
        self.head = PointHead(channels, num_classes)
        draw_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        logits: Tensor = self.head(F.relu(self.cells(self.stem(x))))
        return logits


def one_shot(num_classes: int = 10, in_channels: int = 3, width: int = WIDTH) -> OneShot:
    """The One-Shot supernetwork with the concat aggregator, for images of 32x32."""
    return OneShot(width=width, num_classes=num_classes, in_channels=in_channels)


def one_shot_imagenet(num_classes: int = 1000, in_channels: int = 3, width: int = WIDTH) -> OneShot:
    """The One-Shot supernetwork with the concat aggregator, for images of 224x224: its first cells see 28x28."""
    return OneShot(width=width, strides=(2, 2, 2), num_classes=num_classes, in_channels=in_channels, size=224)


def one_shot_additive(num_classes: int = 10, in_channels: int = 3, width: int = WIDTH) -> OneShot:
    """The One-Shot supernetwork with the additive aggregator, for images of 32x32."""
    return OneShot(width=width, aggregator="add", num_classes=num_classes, in_channels=in_channels)


def one_shot_additive_imagenet(num_classes: int = 1000, in_channels: int = 3, width: int = WIDTH) -> OneShot:
    """The One-Shot supernetwork with the additive aggregator, for images of 224x224."""
    return OneShot(
        width=width,
        aggregator="add",
        strides=(2, 2, 2),
        num_classes=num_classes,
        in_channels=in_channels,
        size=224,
    )
