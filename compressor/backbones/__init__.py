"""Networks that ship with the program, by name.

A backbone is a function ``make(num_classes=..., in_channels=...) -> nn.Module``; the module may carry an
``input_shape`` attribute, the shape of one input without the batch axis. Other distributions add their own through the
entry-point group ``compressor.backbones``.
"""

from __future__ import annotations

from compressor.registry import Registry

BACKBONES = Registry(
    "backbone",
    {
        f"resnet{depth}_cifar": f"compressor.backbones.resnet_cifar:resnet{depth}_cifar"
        for depth in (20, 32, 44, 56, 110)
    },
    group="compressor.backbones",
)

__all__ = ["BACKBONES"]
