"""Search a smaller detector: SSDLite under half its multiply-adds, with FiGS, from drawing the data to mAP.

    python examples/detection.py --epochs 20

The data (``make_shapes.py``) is of COCO's format, so your own works alike: ``load_data("coco:DIR")`` here, or on the
command line

    compress --model ssdlite320_mobilenet_v3_large --data coco:DIR --search figs --budget-flops 50% --batch-size 16

A detector computes its losses itself, in training mode; they are summed. The score is COCO's mean average precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from make_shapes import make
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

import compressor
from compressor.data import load_data
from compressor.train import TrainConfig, Trainer, evaluate


def detector(num_classes: int, side: int) -> nn.Module:
    """SSDLite that brings its images to ``side`` pixels instead of 320, which takes so much less time."""
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=num_classes, nms_thresh=0.45, detections_per_img=20
    )
    model.transform.fixed_size = (side, side)
    return model


def main(epochs: int, images: int, side: int, folder: str) -> None:
    make(folder, train=images, val=max(8, images // 4))
    data = load_data(f"coco:{folder}")
    assert data.num_classes is not None
    model = detector(data.num_classes, side)
    recipe = TrainConfig(epochs=2 * epochs, batch_size=16, lr=0.02, optimizer="sgd", warmup_epochs=1, grad_clip=5)
    Trainer(model, data, recipe).run()
    print(f"the original: mAP {evaluate(model, data.val, task=data.task).score:.3f}")

    training = compressor.Training(search_epochs=epochs, finetune_epochs=epochs, batch_size=16, lr=0.01, clip_norm=5)
    result = compressor.compress(
        model, data.example_inputs, {"flops": "50%"}, search="figs", data=data, training=training
    )
    (budget,), scores = result.report.budgets, result.report.accuracy
    assert scores is not None
    print(f"multiply-adds: {budget.original:.4g} -> {budget.reached:.4g}")
    print(f"{scores.metric}: {scores.before:.3f} before, {scores.after_finetune:.3f} after")
    (found,) = result.model.eval()(data.example_inputs)
    print(f"{len(found['boxes'])} boxes in the first image; saved in {result.save(Path(folder) / 'small')}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--out", dest="folder", default="shapes")
    main(**vars(parser.parse_args()))
