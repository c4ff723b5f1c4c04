"""The models of the coverage table and an input for each."""

from __future__ import annotations

from typing import Any

BACKBONES = ("rcnn", "retinanet", "fcos", "ssd")  # of detection models, the backbone is compressed
PER_FAMILY = 2


def names(lists: list[str]) -> list[str]:
    """torchvision's models without the quantised ones; of timm one or two small models of every family."""
    found: list[str] = []
    if "torchvision" in lists:
        import torchvision

        found += [name for name in torchvision.models.list_models() if "quantized" not in name]
    if "timm" in lists:
        found += [f"timm:{name}" for name in of_timm()]
    return found


def of_timm() -> list[str]:
    import timm
    import torch

    chosen: list[str] = []
    for family in timm.list_modules():
        every = timm.list_models(module=family)
        sized = []
        for name in every[:: max(1, len(every) // 8)]:
            with torch.device("meta"):
                try:
                    model = timm.create_model(name)
                except (NotImplementedError, RuntimeError, ValueError):
                    continue
            sized.append((sum(p.numel() for p in model.parameters()), name))
        chosen += [name for _, name in sorted(sized)[: PER_FAMILY if len(sized) > 3 else 1]]
    return chosen


def build(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The model with random weights, in evaluation mode, and an example input."""
    import torch

    torch.manual_seed(0)
    if name.startswith("timm:"):
        import timm

        model = timm.create_model(name[5:], pretrained=False)
        size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
        return model.eval(), (torch.randn(1, *size),)
    import torchvision

    detection = any(kind in name for kind in BACKBONES)
    given = {"weights_backbone": None} if detection or any(k in name for k in ("deeplab", "fcn", "lraspp")) else {}
    model = torchvision.models.get_model(name, weights=None, **given).eval()
    if detection:
        return model.backbone, (torch.randn(1, 3, 320, 320),)
    if name.startswith("raft"):
        return model, (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128))
    sizes = {
        "mvit": (3, 16, 224, 224),
        "s3d": (3, 16, 224, 224),
        "swin3d": (3, 8, 224, 224),
        "inception": (3, 299, 299),
    }
    sizes |= dict.fromkeys(("r3d", "mc3", "r2plus1d"), (3, 8, 112, 112))
    size = next((s for kind, s in sizes.items() if name.startswith(kind)), (3, 224, 224))
    return model, (torch.randn(1, *size),)
