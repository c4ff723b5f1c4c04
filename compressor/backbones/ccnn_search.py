"""CCNNs as DNArch searches them: every component of the architecture stands as something that can be kept in part.

    encoder   write(scale * GELU(BatchNorm(pointwise(inputs))))
    block     x + write(scale * GELU(pointwise(dropout(GELU(pointwise(long convolution(BatchNorm(read(x)))))))))
    decoder   pointwise(mean of read(x) over positions)

``read`` takes N_in channels of the stream and ``write`` adds to N_out of them, so that each block has widths N_in,
N_mid and N_out of its own (section 3.3), and encoder and decoder have theirs. During a search the stream is only as
wide as what they use of it (``compressor.nn.indexed_stream``); a trimmed network keeps its width. Kernels span the
input and come from one network of coordinates while training (``compressor.nn.generated``); outside they are ordinary
weights of depthwise convolutions, so what is left after a search is an ordinary network. ``scale`` is where masks over
N_out and over the depth are multiplied in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.backbones.ccnn import KernelNet, long_convolution
from compressor.errors import UsageError
from compressor.masks import gaussian
from compressor.masks.sigmoid import coordinates
from compressor.nn.generated import ATTRIBUTE
from compressor.nn.indexed_stream import Read, Write, is_watched
from compressor.nn.tensors import Region, part

FEWEST_TAPS = 64  # from here on the FFT is quicker than the sum


class _Long:
    """Mixed into a convolution: depthwise, padded to the same size; through the FFT where that is quicker.

    What looks at the operators of a network (a trace, an export) sees an ordinary convolution.
    """

    computes_convolution = True

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if is_watched(x) or weight[0].numel() < FEWEST_TAPS:
            y: Tensor = super()._conv_forward(x, weight, bias)  # type: ignore[misc]
            return y
        return long_convolution(x, weight[:, 0])


class LongConv1d(_Long, nn.Conv1d):
    """See ``_Long``."""


class LongConv2d(_Long, nn.Conv2d):
    """See ``_Long``."""


_LONG = {1: LongConv1d, 2: LongConv2d}
_CONV = {1: nn.Conv1d, 2: nn.Conv2d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


class SearchableBlock(nn.Module):
    """See the module docstring; (B, C, *lengths) to the same shape."""

    def __init__(self, channels: int, lengths: Sequence[int], dropout: float) -> None:
        super().__init__()
        dims, sizes = len(lengths), [n | 1 for n in lengths]
        self.read = Read(channels)
        self.norm = _NORM[dims](channels)
        long = _LONG[dims]
        padding = tuple(k // 2 for k in sizes)
        self.conv = long(channels, channels, tuple(sizes), padding=padding, groups=channels, bias=False)  # type: ignore[arg-type]
        self.mid, self.out = _CONV[dims](channels, channels, 1), _CONV[dims](channels, channels, 1)
        self.act, self.dropout = nn.GELU(), nn.Dropout(dropout)
        self.write = Write(channels, dims)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.mid(self.conv(self.norm(self.read(x)))))
        branch: Tensor = self.write(self.act(self.out(self.dropout(y))))
        return x + branch


class Kernels(nn.Module):
    """The kernels of all blocks, by the names of the weights that they are."""

    def __init__(self, channels: int, blocks: int, lengths: Sequence[int], omega_0: float) -> None:
        super().__init__()
        self.sizes, self.blocks = [n | 1 for n in lengths], blocks
        self.net = KernelNet(len(lengths), channels, blocks, omega_0)
        energy = gaussian.product_mask(self.sizes, [gaussian.GLOBAL] * len(lengths)).square().sum()
        self.scale = 1 / math.sqrt(float(energy))  # outputs as large as inputs, under the masks a search starts with

    def forward(
        self, regions: Mapping[str, Region] | None = None, spacings: Mapping[str, tuple[float, ...]] | None = None
    ) -> dict[str, Tensor]:
        """See ``compressor.nn.generated``; each of shape (channels, 1, *sizes), or a region of that."""
        names = [_kernel_name(i) for i in range(self.blocks)]
        wanted: dict[int, Region] = {i: {} for i in range(self.blocks)}
        if regions is not None:
            wanted = {i: regions[name] for i, name in enumerate(names) if name in regions}
        alike: dict[tuple[float, ...], dict[int, Region]] = {}
        for i, region in wanted.items():
            alike.setdefault((spacings or {}).get(names[i], ()), {})[i] = region
        return {names[i]: kernel for spacing, those in alike.items() for i, kernel in self._kernels(those, spacing)}

    def _kernels(self, wanted: Mapping[int, Region], spacing: tuple[float, ...]) -> Iterator[tuple[int, Tensor]]:
        """Regions of the kernels of these blocks, whose samples are equally far apart."""
        windows = {i: self._window(region) for i, region in wanted.items()}
        # The features of the smallest window that has all of them.
        along = list(zip(*windows.values(), strict=True))
        first = [min(start for start, _ in axis) for axis in along]
        last = [max(start + length for start, length in axis) for axis in along]
        spans = [(a, b - a) for a, b in zip(first, last, strict=True)]
        features = self.net.features(self.sizes, spans, spacing)
        strength = self._strength(spans, spacing).to(features)
        for i, region in wanted.items():
            mine = {d: (start - first[d], n) for d, (start, n) in enumerate(windows[i])}
            kernels = self.net(i, part(features, mine), region.get(0)) * part(strength, mine)
            yield i, part(kernels[:, None], _indexed(region))

    def _strength(self, spans: Sequence[tuple[int, int]], spacing: tuple[float, ...]) -> Tensor:
        """What samples of a kernel are multiplied by: more where they stand for more, none beyond its ends."""
        strength = torch.full([1] * len(spans), self.scale, dtype=torch.float64)
        for d, (apart, n, span) in enumerate(zip(spacing, self.sizes, spans, strict=False)):
            inside = (coordinates(n) * apart).narrow(0, *span).abs() <= 1 + 1e-9
            strength = strength * (apart * inside).reshape(-1, *[1] * (len(spans) - 1 - d))
        return strength.expand([length for _, length in spans])

    def _window(self, region: Region) -> list[tuple[int, int]]:
        """Start and length of the places to compute along each axis."""
        found = [region.get(d) for d in range(2, 2 + len(self.sizes))]
        return [w if isinstance(w, tuple) else (0, n) for w, n in zip(found, self.sizes, strict=True)]


def _indexed(region: Region) -> Region:
    """What of a region is left to do once its channels and windows are computed."""
    return {d: index for d, index in region.items() if d == 1 or (d > 1 and not isinstance(index, tuple))}


def _kernel_name(block: int) -> str:
    return f"blocks.{block}.conv.weight"


class SearchableCCNN(nn.Module):
    """A CCNN for inputs of one size.

    Args:
        blocks, channels: depth and width.
        lengths: size of the inputs: (L,) or (H, W).
        dense: predict at every position.
        vocabulary: inputs are tokens (B, L); then ``in_channels`` is not used.
        others: as ``compressor.backbones.ccnn.CCNN``.
    """

    def __init__(
        self,
        blocks: int,
        channels: int,
        lengths: Sequence[int],
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        dense: bool = False,
        omega_0: float = 1.0,
        dropout: float = 0.1,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        dims = len(lengths)
        if dims not in _CONV or min(blocks, channels, num_classes, in_channels, *lengths) < 1:
            raise UsageError(
                "A CCNN has 1 or 2 spatial axes, and at least one block, channel, class, input channel and sample; not "
                f"{blocks}, {channels}, {num_classes}, {in_channels} and {list(lengths)}."
            )
        if vocabulary is not None and (dims != 1 or vocabulary < 1):
            raise UsageError(f"Tokens are sequences from a vocabulary of at least 1, not {dims} axes and {vocabulary}.")
        self.dense = dense
        self.input_shape = tuple(lengths) if vocabulary else (in_channels, *lengths)
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, channels)
        self.encoder = _CONV[dims](channels if vocabulary else in_channels, channels, 1)
        self.encoder_norm, self.act, self.stem = _NORM[dims](channels), nn.GELU(), Write(channels, dims)
        self.blocks = nn.ModuleList(SearchableBlock(channels, lengths, dropout) for _ in range(blocks))
        self.head = Read(channels)
        self.decoder: nn.Module = _CONV[dims](channels, num_classes, 1) if dense else nn.Linear(channels, num_classes)
        source = Kernels(channels, blocks, lengths, omega_0)
        vars(self)[ATTRIBUTE] = source  # no module of the network: it is left behind
        with torch.no_grad():
            for name, kernel in source().items():
                self.get_parameter(name).copy_(kernel)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SearchableCCNN:
        source = vars(self).get(ATTRIBUTE)
        if isinstance(source, nn.Module):
            source._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes), or (B, num_classes, *lengths) with ``dense``."""
        if self.embedding is not None:
            x = self.embedding(x).transpose(1, 2)
        x = self.stem(self.act(self.encoder_norm(self.encoder(x))))
        for block in self.blocks:
            x = block(x)
        x = self.head(x)
        logits: Tensor = self.decoder(x if self.dense else x.flatten(2).mean(2))
        return logits


def _make(blocks: int, channels: int, default: tuple[int, ...]) -> Callable[..., SearchableCCNN]:
    dims = len(default)

    def build(
        num_classes: int | None, in_channels: int | None, input_shape: Sequence[int] | None, grow: int, **rest: Any
    ) -> SearchableCCNN:
        tokens = rest.get("vocabulary") is not None
        shape = tuple(input_shape or ((in_channels or (3 if dims == 2 else 1)), *default))
        lengths = shape if tokens and input_shape else shape[1:]
        if len(lengths) != dims:
            wanted = {1: "(channels, length), or (length,) of tokens", 2: "(channels, height, width)"}[dims]
            raise UsageError(f"This CCNN takes inputs of shape {wanted}, not {shape}.")
        inputs = in_channels or (1 if tokens else shape[0])
        outputs = num_classes or (1 if rest.get("dense") else 10)
        if grow < 1:
            raise UsageError(f"grow must be at least 1, not {grow}.")
        return SearchableCCNN(blocks * grow, channels * grow, lengths, num_classes=outputs, in_channels=inputs, **rest)

    if dims == 1:

        def make_1d(
            num_classes: int | None = None,
            in_channels: int | None = None,
            input_shape: Sequence[int] | None = None,
            dense: bool = False,
            vocabulary: int | None = None,
            grow: int = 1,
        ) -> SearchableCCNN:
            """A CCNN for sequences of ``input_shape`` (without the batch axis), of signals or tokens."""
            return build(num_classes, in_channels, input_shape, grow, dense=dense, vocabulary=vocabulary)

        return make_1d

    def make_2d(
        num_classes: int | None = None,
        in_channels: int | None = None,
        input_shape: Sequence[int] | None = None,
        dense: bool = False,
        grow: int = 1,
    ) -> SearchableCCNN:
        """A CCNN for images or fields of ``input_shape`` (without the batch axis)."""
        return build(num_classes, in_channels, input_shape, grow, dense=dense)

    return make_2d


ccnn_4_140 = _make(4, 140, (32, 32))
ccnn_6_380 = _make(6, 380, (32, 32))
ccnn_4_140_1d = _make(4, 140, (1024,))
ccnn_6_380_1d = _make(6, 380, (1024,))
