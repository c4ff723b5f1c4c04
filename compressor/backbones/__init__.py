"""Networks that ship with the program, by name.

A backbone is a function ``make(num_classes=..., in_channels=...) -> nn.Module``. It may take ``dense`` (a prediction at
every position), ``vocabulary`` (inputs are tokens) and ``input_shape`` (of one input, without the batch axis), which
says that it is made for one size of input; the module may carry an ``input_shape`` attribute of the same meaning. Other
distributions add their own through the entry-point group ``compressor.backbones``.
"""

from __future__ import annotations

from compressor.plugins.registry import Registry

BACKBONES = Registry(
    "backbone",
    {
        f"resnet{depth}_cifar": f"compressor.backbones.resnet_cifar:resnet{depth}_cifar"
        for depth in (20, 32, 44, 56, 110)
    }
    | {
        name + suffix: f"compressor.backbones.ccnn_search:{name}{suffix}"
        for name in ("ccnn_4_140", "ccnn_6_380")
        for suffix in ("", "_1d")
    }
    | {name: f"compressor.backbones.wide_resnet:{name}" for name in ("wrn_16_1", "wrn_16_4")}
    | {
        name + suffix: f"compressor.backbones.mobilenet_space:{name}{suffix}"
        for name in ("mobilenet_v2_space", "mobilenet_v3_space", "mobilenet_width")
        for suffix in ("", "_imagenet")
    }
    | {
        name + suffix: f"compressor.backbones.{file}:{name}{suffix}"
        for file, name in (("one_shot", "one_shot"), ("one_shot", "one_shot_additive"), ("fbnet_space", "fbnet"))
        for suffix in ("", "_imagenet")
    }
    | {"wrn1d": "compressor.backbones.wide_resnet_1d:wrn1d", "tcn": "compressor.backbones.tcn:tcn"},
    group="compressor.backbones",
)

__all__ = ["BACKBONES"]
