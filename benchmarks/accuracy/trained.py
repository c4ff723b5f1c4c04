"""Small networks of many kinds, trained on one part of a data set and scored on another that no training saw.

What a cut or a search is worth is told on these: each is trained from random weights in minutes on one core, its test
split is thousands of samples, and nothing was ever chosen by them. Images of CIFAR-10 are averaged to 16x16, those of
Fashion-MNIST to 14x14.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.accuracy.parts import fewer, smaller
from compressor.backbones.resnet_cifar import CifarResNet
from compressor.backbones.wide_resnet_1d import WideResNet1d
from compressor.data import Data, load_data
from compressor.data.memory import TensorSplit
from compressor.models import load_model
from compressor.train import TrainConfig, Trainer, evaluate

TESTED = 10_000


@dataclass(frozen=True)
class Task:
    """A network, what it is trained on, and how.

    Attributes:
        epochs: of the training of the original.
        lr: of that training; with ``tuned_lr`` a compressed one is trained, and searched in.
        published: weights of this file are taken, and nothing is trained.
    """

    network: Callable[[], nn.Module]
    data: Callable[[Path], Data]
    epochs: int = 15
    lr: float = 0.05
    tuned_lr: float = 0.02
    optimizer: str = "sgd"
    published: str | None = None


def cifar10(folder: Path, images: int = 20_000) -> Data:
    """CIFAR-10 at half of its resolution."""
    return smaller(fewer(load_data(f"cifar10:{folder}"), images, TESTED), 2)


def cifar10_full(folder: Path, images: int = 10_000) -> Data:
    """CIFAR-10 as it is, for networks that were trained on all of it; the test split is the 1,000 test images."""
    whole = load_data(f"cifar10:{folder}")
    train: Any = whole.train
    return replace(whole, train=train.subset(torch.arange(images)))


def fashion(folder: Path) -> Data:
    """Fashion-MNIST at half of its resolution, a third of the images."""
    whole = load_data(f"fashionmnist:{folder / 'FashionMNIST'}")
    train: Any = whole.train
    return smaller(replace(whole, train=train.subset(torch.arange(20_000))), 2, shift=1)


def digits(folder: Path) -> Data:
    """Spoken digits at 2 kHz: half of the recordings to train on, the others to test with."""
    data = load_data(f"fsdd:{folder},rate=2000")
    inputs, targets = [], []
    for split in (data.train, data.val, data.test):
        assert split is not None
        for x, y in split.batches(500):
            inputs.append(x)
            targets.append(y)
    x, y = torch.cat(inputs), torch.cat(targets)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    parts = torch.split(order, [1400, 200, len(y) - 1600])
    train, val, test = (TensorSplit(x[part], y[part]) for part in parts)
    return replace(data, train=train, val=val, test=test)


def mobilenet() -> nn.Module:
    """A MobileNetV2 at half of its widths, for small images."""
    from torchvision.models.mobilenetv2 import MobileNetV2

    stages = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 2, 2], [6, 64, 2, 2], [6, 96, 2, 1]]
    model = MobileNetV2(num_classes=10, width_mult=0.5, inverted_residual_setting=stages, dropout=0.0)
    stem: Any = model.features[0][0]
    stem.stride = (1, 1)
    return model


def efficientnet() -> nn.Module:
    """Inverted residual blocks with squeeze and excitation, after EfficientNet, for small images."""
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    stages = [
        MBConvConfig(1, 3, 1, 16, 16, 1, 1.0, 1.0),
        MBConvConfig(4, 3, 1, 16, 24, 2, 1.0, 1.0),
        MBConvConfig(4, 5, 2, 24, 40, 2, 1.0, 1.0),
        MBConvConfig(4, 3, 2, 40, 64, 2, 1.0, 1.0),
    ]
    model = EfficientNet(stages, dropout=0.0, num_classes=10, last_channel=160)
    stem: Any = model.features[0][0]
    stem.stride = (1, 1)
    return model


def vit() -> nn.Module:
    """A vision transformer on patches of 2x2 pixels."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 2, 4, 4, 64, 128, num_classes=10)


def convnext() -> nn.Module:
    """A ConvNeXt for small images."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    stages = [CNBlockConfig(32, 64, 2), CNBlockConfig(64, 128, 2), CNBlockConfig(128, None, 2)]
    model = ConvNeXt(stages, stochastic_depth_prob=0.0, num_classes=10, layer_scale=1.0)
    stem: Any = model.features[0][0]
    stem.stride, stem.kernel_size = (2, 2), (2, 2)
    stem.weight = nn.Parameter(stem.weight.detach()[:, :, :2, :2].clone())
    return model


def vgg() -> nn.Module:
    """A plain stack of convolutions with batch norm."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (32, 32, 0, 64, 64, 0, 128, 128):
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def densenet() -> nn.Module:
    """A DenseNet for small images."""
    from torchvision.models.densenet import DenseNet

    model = DenseNet(12, (6, 6, 6), 24, num_classes=10)
    stem: Any = model.features
    stem.conv0 = nn.Conv2d(1, 24, 3, padding=1, bias=False)
    stem.pool0 = nn.Identity()
    return model


def plain() -> nn.Module:
    """Convolutions without any norm, and a hidden linear layer."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 9, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


TASKS = {
    "resnet20": Task(lambda: CifarResNet(3), cifar10),
    "mobilenet": Task(mobilenet, cifar10),
    "vit": Task(vit, cifar10, lr=0.001, tuned_lr=0.02, optimizer="adamw"),
    "wrn1d": Task(lambda: WideResNet1d([24, 48, 48], num_classes=10, in_channels=1), digits, epochs=20),
    "vgg": Task(vgg, fashion, epochs=10),
    "densenet": Task(densenet, fashion, epochs=8),
    "efficientnet": Task(efficientnet, cifar10),
    "convnext": Task(convnext, cifar10, lr=0.001, optimizer="adamw"),
    "plain": Task(plain, fashion, epochs=8, lr=0.02, tuned_lr=0.01),
    "resnet20_published": Task(lambda: load_model("resnet20_cifar", weights="none").model, cifar10_full, published="cifar10_resnet20"),
    "resnet56_published": Task(lambda: load_model("resnet56_cifar", weights="none").model, cifar10_full, published="cifar10_resnet56"),
}  # fmt: skip


def load(name: str, folder: Path, cache: Path) -> tuple[nn.Module, Data, Task]:
    """The trained network in evaluation mode, its data, and its task; trained now if ``cache`` does not have it."""
    task = TASKS[name]
    data = task.data(folder)
    torch.manual_seed(0)
    model = task.network()
    file = cache / f"{name}.safetensors"
    if task.published is not None:
        file = folder / "weights" / f"{task.published}.safetensors"
        model = load_model(f"{name.partition('_')[0]}_cifar", weights=str(file)).model
    elif file.exists():
        model.load_state_dict(load_file(file))
    else:
        config = TrainConfig(epochs=task.epochs, lr=task.lr, optimizer=task.optimizer, warmup_epochs=1, seed=0)
        Trainer(model, data, config).run()
        cache.mkdir(parents=True, exist_ok=True)
        save_file({key: t.contiguous() for key, t in model.state_dict().items()}, file)
    return model.eval(), data, task


def main() -> None:
    import argparse
    import time

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with cifar10.npz, FashionMNIST, fsdd.npz and weights")
    parser.add_argument("cache", type=Path, help="where trained weights are kept")
    parser.add_argument("--tasks", default=",".join(TASKS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.tasks.split(","):
        started = time.process_time()
        model, data, _ = load(name, args.data, args.cache)
        assert data.test is not None
        on = [evaluate(model, split).accuracy for split in (data.train, data.val, data.test)]
        print(
            f"{name}: train {on[0]:.4f} val {on[1]:.4f} test {on[2]:.4f} {time.process_time() - started:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
