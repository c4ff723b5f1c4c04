"""Where backbones can pool: layers, reductions and configurations, and whether these cost what was said.

    python -m benchmarks.coverage.pooling

Writes ``pooling.md``. Of every backbone some configurations are applied to a copy, run and traced anew.
"""

from __future__ import annotations

import copy
import random
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.backbones.resnet_cifar import resnet20_cifar, resnet56_cifar
from compressor.costs import Sizes, build
from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices

FILE = Path(__file__).with_suffix(".md")
TRIED = 4
COSTS = ("flops", "params", "memory")
BACKBONES = (
    *("resnet20_cifar", "resnet56_cifar", "resnet18 (3x3 stem)", "resnet50 (3x3 stem)", "resnet18", "resnet50"),
    *("resnet152", "wide_resnet50_2", "resnext50_32x4d", "regnet_y_400mf", "regnet_x_800mf", "mobilenet_v2"),
    *("mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "densenet121", "vgg11", "vgg16_bn"),
    *("convnext_tiny", "mnasnet1_0", "shufflenet_v2_x1_0", "squeezenet1_1", "googlenet", "inception_v3", "alexnet"),
    *("vit_b_16", "swin_t", "deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large"),
    *("timm:resnet18d", "timm:seresnet18", "timm:resnetv2_50", "timm:mobilenetv3_small_100", "timm:efficientnet_lite0"),
    *("timm:tf_efficientnet_b0", "timm:convnext_atto", "timm:regnetz_005", "timm:densenet121", "timm:darknet53"),
    *("timm:repvgg_a0", "timm:res2net50_26w_4s", "timm:ghostnet_100", "timm:xception41", "timm:nfnet_f0"),
    *("timm:vovnet39a", "timm:dla34", "timm:dpn48b", "timm:selecsls42", "timm:edgenext_x_small"),
    *("timm:poolformer_s12", "timm:mobilevit_xxs", "timm:hrnet_w18_small", "timm:convmixer_768_32"),
)
HEAD = f"""# Where backbones can pool

    python -m benchmarks.coverage.pooling

*Layers* of the trunk that is searched, *pools* that can move, and *configurations* that follow (above 4096 some are
taken evenly). Of every backbone {TRIED} configurations, the first and the last among them, are applied to a copy that runs
and is traced anew: *exact* if multiply-adds, parameters and activation memory are what the choice said, to 1e-6.
*Seconds* are those of finding the choice with all of its costs, on one thread. Random weights, inputs of 64x64 (224x224
for transformers, 128x128 for inception_v3), torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}.
"""


def model_of(name: str) -> nn.Module:
    """A backbone with random weights."""
    shipped = {"resnet20_cifar": resnet20_cifar, "resnet56_cifar": resnet56_cifar}
    if name in shipped:
        return shipped[name]()
    if name.startswith("timm:"):
        found: nn.Module = timm.create_model(name.removeprefix("timm:"))
        return found
    plain, _, small = name.partition(" ")
    options: dict[str, Any] = (
        {"init_weights": False, "aux_logits": False} if plain in ("googlenet", "inception_v3") else {}
    )
    if plain.startswith(("deeplabv3", "fcn", "lraspp")):
        options["weights_backbone"] = None
    model: Any = torchvision.models.get_model(plain, weights=None, **options)
    if small:
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return model  # type: ignore[no-any-return]


def size_of(name: str) -> int:
    return 224 if "vit_b" in name or "swin" in name else 128 if name == "inception_v3" else 64


def outcome(model: nn.Module, x: torch.Tensor, graph: Graph) -> str:
    """``exact``, or what is not."""
    (choice,) = graph.choices
    terms = {cost: build(cost, graph) for cost in COSTS}
    shapes = {p.name: list(p.shape) for p in graph.parameters.values()}
    aliases = {p.name: list(p.names) for p in graph.parameters.values() if len(p.names) > 1}
    middle = range(2, len(choice) - 1)
    taken = {1, len(choice) - 1, *random.Random(0).sample(middle, min(len(middle), TRIED - 2))}
    for index in sorted(taken):
        alternative = choice.alternatives[index]
        changed = Architecture(graph.model_class, shapes, alternative.edits, aliases=aliases).apply_(
            copy.deepcopy(model)
        )
        with torch.no_grad():
            changed(x)
        units = graph.all_units()
        units[choice.units] = False
        units[choice.units[index]] = True
        traced, sizes = capture(changed, x), Sizes(graph, torch.from_numpy(units[:-1].astype("float64")))
        for cost in COSTS:
            said, is_ = float(terms[cost](sizes)), build(cost, traced).original
            if abs(said - is_) > 1e-6 * is_:
                return f"{cost} of {alternative.name} {said / is_ - 1:+.1%}"
    return "exact"


def row(name: str) -> str:
    """A line of the table."""
    torch.manual_seed(0)
    size = size_of(name)
    model, x = model_of(name).eval(), torch.randn(1, 3, size, size)
    graph = capture(model, x)
    started = time.perf_counter()
    add_choices(model, graph, ["pooling"])
    seconds = time.perf_counter() - started
    stages = graph.stages
    assert stages is not None
    if stages.reason:
        return f"| {name} | | | | | refused: {stages.reason} | {seconds:.1f} |"
    default = "-" if stages.default is None else str(list(stages.configurations[stages.default]))
    counts = f"{len(stages.layers)} | {len(stages.reductions)} | {len(stages.configurations)}"
    return f"| {name} | {counts} | {default} | {outcome(model, x, graph)} | {seconds:.1f} |"


def main() -> None:
    """Measure all, and write the table."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
    rows = []
    for name in BACKBONES:
        rows.append(row(name))
        print(rows[-1], flush=True)
    exact, refused = (sum(f"| {word}" in each for each in rows) for word in ("exact", "refused"))
    told = f"{exact} of {len(rows)} exact, {refused} refused.\n"
    columns = "| model | layers | pools | configurations | its own | result | seconds |\n| --- | ---: | ---: | ---: | --- | --- | ---: |"
    FILE.write_text("\n".join([HEAD, told, columns, *rows]) + "\n")


if __name__ == "__main__":
    main()
