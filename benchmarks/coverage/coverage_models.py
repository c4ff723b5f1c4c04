"""The models of the coverage table and an input for each.

python -m benchmarks.coverage.coverage_models     # checks that every family of timm is on the list
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

BACKBONES = ("rcnn", "retinanet", "fcos", "ssd")  # of detection models, the backbone is compressed
SIZES = {
    **dict.fromkeys(("mvit", "s3d"), (3, 16, 224, 224)),
    "swin3d": (3, 8, 224, 224),
    "inception": (3, 299, 299),
    **dict.fromkeys(("r3d", "mc3", "r2plus1d"), (3, 8, 112, 112)),
}

# One or more of every family, of the sizes people use; more where a family holds several architectures.
TIMM = (Path(__file__).parent / "coverage_timm.txt").read_text().split()


def names(lists: list[str]) -> list[str]:
    """torchvision's models without the quantised ones, whose weights are no floating-point tensors, and ``TIMM``."""
    found: list[str] = []
    if "torchvision" in lists:
        import torchvision

        found += [name for name in torchvision.models.list_models() if "quantized" not in name]
    if "timm" in lists:
        found += [f"timm:{name}" for name in TIMM]
    return found


def missing_families() -> list[str]:
    """Families (modules) of timm of which no model is listed."""
    import timm

    return [family for family in timm.list_modules() if not set(timm.list_models(module=family)) & set(TIMM)]


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
    size = next((s for kind, s in SIZES.items() if name.startswith(kind)), (3, 224, 224))
    return model, (torch.randn(1, *size),)


if __name__ == "__main__":
    import timm

    unknown = sorted(set(TIMM) - set(timm.list_models()))
    print(f"{len(TIMM)} models of timm; unknown: {unknown}; families without one: {missing_families()}")
