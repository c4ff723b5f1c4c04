"""Simulated devices and ready-made keys for the tests of latency tables."""

from __future__ import annotations

import math

import numpy as np

from lut import Device, Measurement, Signature, Target

TARGET = Target(Device("simulated", "stairs", 4), "simulated", "1.0")
OTHER = Target(Device("simulated", "stairs", 4), "simulated", "1.1")
CONV = Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(56, 56), fused=("norm", "relu"))
POOL = Signature("max_pool2d", (3, 3), (2, 2), (1, 1), spatial=(112, 112), axes=1)


def up(channels: int, step: int) -> int:
    return -(-channels // step) * step


def smooth(channels_in: int, channels_out: int) -> float:
    """Overhead, traffic, arithmetic, in ms."""
    return 0.02 + 3e-5 * channels_in + 4e-5 * channels_out + 6e-6 * channels_in * channels_out


def stairs(channels_in: int, channels_out: int) -> float:
    """Input padded to 16, output to 32."""
    return smooth(up(channels_in, 16), up(channels_out, 32))


def ragged(channels_in: int, channels_out: int) -> float:
    """As measured for a convolution in ONNX Runtime: slow input sizes between multiples of 4, output padded to 16 and
    computed four blocks of 16 at a time."""
    blocks = up(channels_out, 16) // 16
    units = 16 * (blocks // 4 * 4 + (0, 1.6, 2.4, 3.2)[blocks % 4])
    paid = up(channels_in, 16) if channels_in % 4 == 0 else 1.35 * channels_in
    return 0.03 + 2e-4 * up(channels_out, 16) + 1e-4 * channels_in + 7e-6 * paid * units


def noisy(channels_in: int, channels_out: int, latency_ms: float, sigma: float, seed: int) -> float:
    """The latency with the same noise each time it is asked for."""
    return latency_ms * math.exp(np.random.default_rng((channels_in, channels_out, seed)).normal(0.0, sigma))


def took(latency_ms: float, repeats: int = 20, spread: float = 0.01) -> Measurement:
    return Measurement(latency_ms, spread, repeats, measured_at="2026-01-31T12:00:00Z")
