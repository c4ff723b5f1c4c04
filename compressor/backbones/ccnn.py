"""Continuous CNNs: Romero et al., "Towards a General Purpose CNN for Long Range Dependencies in ND", 2022, with the
shared kernel network of DNArch (Romero and Zeghidour, 2023, appendix E.1).

    encoder   pointwise linear, BatchNorm, GELU
    block     x + GELU(pointwise(dropout(GELU(pointwise(long convolution(BatchNorm(x)))))))
    decoder   (mean over positions,) pointwise linear

The kernels of all blocks come from one network of coordinates in [-1, 1]^D: Fourier features
``cos, sin(2 pi omega_0 W x)`` and three linear layers, with a learned bias per block behind the first. A kernel spans
the whole input and is cut by a Gaussian mask of learned extent per block and axis (``masks.gaussian``), so its size is
learned along with everything else. ``render`` makes an ordinary network of it: the kernels become the weights of
depthwise convolutions, cropped to where their masks are above the threshold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.masks import gaussian
from compressor.masks.sigmoid import coordinates
from compressor.nn.tensors import Region, part

_CONV = {1: nn.Conv1d, 2: nn.Conv2d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
HIDDEN = 128


class KernelNet(nn.Module):
    """Kernels of all blocks as functions of the position.

    Args:
        dims: axes of a kernel.
        channels: outputs, one kernel each.
        blocks: how many sets of kernels there are.
        omega_0: the frequencies that kernels start with.
    """

    frequencies: Tensor

    def __init__(self, dims: int, channels: int, blocks: int, omega_0: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * omega_0 * torch.randn(dims, HIDDEN))
        self.first = nn.Linear(2 * HIDDEN, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, channels)
        self.of_block = nn.Parameter(torch.randn(blocks, HIDDEN))
        # The features' mean square is 1/2, and a GELU about halves that of its input.
        for layer, gain in ((self.first, 2.0), (self.second, 2.0), (self.last, 1.0)):
            nn.init.normal_(layer.weight, std=math.sqrt(gain / layer.in_features))
            nn.init.zeros_(layer.bias)

    def features(
        self, lengths: Sequence[int], windows: Sequence[tuple[int, int]] = (), spacing: Sequence[float] = ()
    ) -> Tensor:
        """What the kernels of all blocks are made from, shape (*lengths, HIDDEN).

        Args:
            windows: start and length along each axis of the places to compute; by default all of them.
            spacing: how many times as far from the centre the places are along each axis; by default once.
        """
        weight = self.first.weight
        axes = [coordinates(n).to(weight) if n > 1 else weight.new_zeros(1) for n in lengths]
        axes = [axis * apart for axis, apart in zip(axes, spacing, strict=True)] if spacing else axes
        axes = [axis.narrow(0, *window) for axis, window in zip(axes, windows, strict=True)] if windows else axes
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        angles = grid @ self.frequencies
        found: Tensor = self.first(torch.cat([angles.cos(), angles.sin()], dim=-1))
        return found

    def forward(self, block: int, features: Tensor, channels: Tensor | tuple[int, int] | None = None) -> Tensor:
        """Kernels of one block, shape (channels, *lengths), with values of about unit variance at the start.

        Args:
            features: of the places to compute, shape (*lengths, HIDDEN).
            channels: indices, or start and length, of those to compute; by default all of them.
        """
        x = nn.functional.gelu(features + self.of_block[block])
        x = nn.functional.gelu(self.second(x))
        wanted: Region = {} if channels is None else {0: channels}
        x = nn.functional.linear(x, part(self.last.weight, wanted), part(self.last.bias, wanted))
        kernels: Tensor = x.movedim(-1, 0)
        return kernels


@functools.cache
def _smooth(n: int) -> int:
    """The next number without prime factors above 5, of which transforms are quick."""
    rest = n
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return n if rest == 1 else _smooth(n + 1)


def long_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """Depthwise convolution (cross-correlation) of the same size with zeros around, through the FFT.

    Args:
        x: (B, C, *lengths).
        kernel: (C, *sizes), odd sizes.
    """
    axes = tuple(range(-(kernel.dim() - 1), 0))
    sizes, lengths = kernel.shape[1:], x.shape[2:]
    # The whole product has n + k - 1 samples; what a shorter transform wraps around are those that are not kept.
    total = [_smooth(max(n + k // 2, k)) for n, k in zip(lengths, sizes, strict=True)]
    product = torch.fft.rfftn(x, s=total, dim=axes) * torch.fft.rfftn(kernel.flip(axes), s=total, dim=axes)
    y: Tensor = torch.fft.irfftn(product, s=total, dim=axes)
    for axis, (n, k) in zip(axes, zip(lengths, sizes, strict=True), strict=True):
        y = y.narrow(axis, k // 2, n)
    return y


class LongConv(nn.Module):
    """The long convolution of one block: a rendered kernel, cut by Gaussian masks.

    The kernel covers the input: as many places as it has along each axis, or one more, to be odd.
    """

    def __init__(self, net: KernelNet, block: int, dims: int, sigma: float) -> None:
        super().__init__()
        self.net = [net]  # shared, so owned by the network alone
        self.block, self.dims = block, dims
        self.sigma = nn.Parameter(torch.full((dims,), sigma))

    def extents(self, sizes: Sequence[int]) -> list[Tensor]:
        """Sigma per axis, at least what keeps one sample; the gradient passes the bound."""
        least = self.sigma.new_tensor([gaussian.smallest(k) for k in sizes])
        return list((self.sigma + (least - self.sigma).clamp_min(0).detach()).unbind())

    def kernel(self, lengths: Sequence[int]) -> Tensor:
        """The masked kernels for an input of these lengths, (C, *sizes) with sizes of ``length | 1``."""
        sizes = [n | 1 for n in lengths]
        mask = gaussian.product_mask(sizes, [s.double() for s in self.extents(sizes)]).to(self.sigma)
        kernel: Tensor = self.net[0](self.block, self.net[0].features(sizes)) * mask
        return kernel / math.sqrt(mask.detach().square().sum())

    def forward(self, x: Tensor) -> Tensor:
        return long_convolution(x, self.kernel(x.shape[2:]))

    def rendered(self, lengths: Sequence[int]) -> nn.Module:
        """An ordinary depthwise convolution with the kernel for these lengths, cropped odd and centred."""
        with torch.no_grad():
            kernel = self.kernel(lengths)
            sizes = kernel.shape[1:]
            for axis, (k, sigma) in enumerate(zip(sizes, self.extents(sizes), strict=True), start=1):
                n = gaussian.count(float(sigma), k)
                kernel = kernel.narrow(axis, (k - n) // 2, n)
            channels, kept = kernel.shape[0], tuple(kernel.shape[1:])
            padding = tuple(k // 2 for k in kept)
            convolution = _CONV[self.dims](channels, channels, kept, padding=padding, groups=channels, bias=False)  # type: ignore[arg-type]
            convolution.to(kernel)
            convolution.weight.copy_(kernel[:, None])
        return convolution


class CCNNBlock(nn.Module):
    """A residual block, (B, C, *lengths) to the same shape."""

    def __init__(self, conv: nn.Module, channels: int, dims: int, dropout: float) -> None:
        super().__init__()
        self.norm = _NORM[dims](channels)
        self.conv = conv
        self.mid = _CONV[dims](channels, channels, 1)
        self.out = _CONV[dims](channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.gelu(self.mid(self.conv(self.norm(x))))
        return x + nn.functional.gelu(self.out(self.dropout(y)))


class CCNN(nn.Module):
    """A continuous CNN.

    Args:
        blocks: residual blocks.
        channels: width of all of them.
        dims: 1 for sequences (B, C, L), 2 for images (B, C, H, W).
        num_classes: outputs; per position with ``dense``.
        dense: predict at every position instead of once.
        omega_0: frequency prior of the kernels, in periods over half the input for a unit weight.
        sigma: initial extent of the kernels; at 0.5 they cover the whole input.
        vocabulary: inputs are tokens (B, L) from 0 to ``vocabulary - 1``, embedded; then ``in_channels`` is not used.
    """

    def __init__(
        self,
        blocks: int = 4,
        channels: int = 140,
        *,
        dims: int = 2,
        num_classes: int = 10,
        in_channels: int = 3,
        dense: bool = False,
        omega_0: float = 1.0,
        sigma: float = 0.5,
        dropout: float = 0.1,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        if min(blocks, channels, num_classes, in_channels, 1 if vocabulary is None else vocabulary) < 1:
            raise UsageError(
                "blocks, channels, num_classes, in_channels and vocabulary must each be at least 1, "
                f"but got {blocks}, {channels}, {num_classes}, {in_channels} and {vocabulary}."
            )
        if dims not in _CONV or (vocabulary is not None and dims != 1):
            raise UsageError(f"dims must be 1 or 2, and 1 for tokens, not {dims}.")
        self.dims, self.dense = dims, dense
        self.input_shape = (in_channels, 32, 32) if dims == 2 else (in_channels, 1024)
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, channels)
        self.encoder = _CONV[dims](channels if vocabulary else in_channels, channels, 1)
        self.encoder_norm = _NORM[dims](channels)
        kernels = KernelNet(dims, channels, blocks, omega_0)
        self.kernels: nn.Module | None = kernels
        self.blocks = nn.ModuleList(
            CCNNBlock(LongConv(kernels, i, dims, sigma), channels, dims, dropout) for i in range(blocks)
        )
        self.decoder: nn.Module = _CONV[dims](channels, num_classes, 1) if dense else nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes), or (B, num_classes, *lengths) with ``dense``."""
        if self.embedding is not None:
            x = self.embedding(x).transpose(1, 2)
        x = nn.functional.gelu(self.encoder_norm(self.encoder(x)))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.decoder(x if self.dense else x.flatten(2).mean(2))
        return logits


def render(model: CCNN, lengths: Sequence[int]) -> CCNN:
    """The same function as an ordinary network for inputs of these lengths: no FFT, no kernel network.

    The result has weights of its own, and can be compressed, exported and trained like any other network.

    Raises:
        UsageError: the number of lengths is not the network's, or it is rendered already.
    """
    import copy

    if model.kernels is None:
        raise UsageError("The network is rendered already.")
    if len(lengths) != model.dims or min(lengths) < 1:
        raise UsageError(f"The network has {model.dims} axes; give as many lengths of at least 1, not {list(lengths)}.")
    memo: dict[int, object] = {id(model.kernels): None}
    for module in model.modules():
        if isinstance(module, LongConv):
            memo[id(module)] = module.rendered(lengths)
    return copy.deepcopy(model, memo)


def ccnn_4_140(num_classes: int = 10, in_channels: int = 3) -> CCNN:
    """CCNN(4, 140) for images: about 200 K parameters."""
    return CCNN(4, 140, num_classes=num_classes, in_channels=in_channels)


def ccnn_6_380(num_classes: int = 10, in_channels: int = 3) -> CCNN:
    """CCNN(6, 380) for images: about 2 M parameters."""
    return CCNN(6, 380, num_classes=num_classes, in_channels=in_channels)


def ccnn_4_140_1d(num_classes: int = 10, in_channels: int = 1) -> CCNN:
    """CCNN(4, 140) for sequences."""
    return CCNN(4, 140, dims=1, num_classes=num_classes, in_channels=in_channels)


def ccnn_6_380_1d(num_classes: int = 10, in_channels: int = 1) -> CCNN:
    """CCNN(6, 380) for sequences."""
    return CCNN(6, 380, dims=1, num_classes=num_classes, in_channels=in_channels)
