"""Compress a vision transformer: heads, widths of its MLPs and whole blocks go, and the result is exported to ONNX.

    python examples/vision_transformer.py --epochs 4 --out vit

Torchvision's class in a small size, on the digits that come with scikit-learn; a pretrained one takes the same lines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torchvision.models import VisionTransformer

import compressor
from compressor.data import load_data
from compressor.train import TrainConfig, Trainer


def network() -> VisionTransformer:
    """Grey images of 8x8 in patches of 2x2."""
    model = VisionTransformer(8, 2, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)
    model.conv_proj = torch.nn.Conv2d(1, 64, 2, 2)
    return model


def main(epochs: int, out: Path) -> None:
    torch.manual_seed(0)
    data = load_data("digits")
    model = network()
    Trainer(model, data, TrainConfig(epochs=epochs, optimizer="adamw", lr=2e-3)).run()
    result = compressor.compress(
        model,
        data.example_inputs,
        {"flops": "50%"},
        data=data,
        training=compressor.Training(search_epochs=epochs, finetune_epochs=epochs, lr=0.02),
    )
    (budget,) = result.report.budgets
    print(f"multiply-adds: {budget.original:.4g} -> {budget.reached:.4g}")
    for name, module in result.model.named_modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            print(f"{name}: {module.num_heads} heads of {module.head_dim} channels")
    print(f"blocks taken out: {', '.join(result.report.blocks_removed) or 'none'}")
    print(f"exported {', '.join(str(path) for path in result.export(out))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("vit"))
    given = parser.parse_args()
    main(given.epochs, given.out)
