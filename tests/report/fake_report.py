"""Reports like real ones: every field filled, numbers that hang together."""

from __future__ import annotations

import math
import random
from typing import Any

from compressor.report import (
    Accuracy,
    AttributeChange,
    BlockShape,
    BudgetResult,
    Cell,
    ChoiceMade,
    Convolution,
    CostResult,
    FileWritten,
    LatencyPrediction,
    LeftAlone,
    PairedTiming,
    Probabilities,
    Quantisation,
    Ranked,
    Report,
    Size,
    Trial,
    Tuning,
    Verification,
    Width,
)
from profilers.base import RunnerInfo, Samples
from profilers.stats import paired_ratio, summarise


def fake_latency(
    original_ms: float, compressed_ms: float, *, target: str = "onnxruntime-cpu", seed: int = 0
) -> PairedTiming:
    """Log-normal runs with a tail, summarised by the code that summarises real ones."""
    rng = random.Random(seed)
    info = RunnerInfo(target, "1.31.1", "AMD EPYC 7763", "fp32", 2, 1)

    def runs(median: float) -> list[float]:
        tail = [median * rng.uniform(1.2, 1.6) for _ in range(12)]
        return [median * math.exp(rng.gauss(0, 0.03)) for _ in range(600)] + tail

    before, after = runs(original_ms), runs(compressed_ms)
    ratio = paired_ratio(
        [sum(after[i : i + 10]) / 10 for i in range(0, 400, 10)],
        [sum(before[i : i + 10]) / 10 for i in range(0, 400, 10)],
    )
    return PairedTiming(
        target=target,
        original=summarise(Samples(before), info).to_json(),
        compressed=summarise(Samples(after), info).to_json(),
        ratio=ratio.to_json(),
    )


def fake_history(start: float, end: float, steps: int, *, name: str = "flops", seed: int = 1) -> list[dict[str, Any]]:
    """A cost that settles at its limit, with the noise of training."""
    rng = random.Random(seed)
    entries = []
    for step in range(0, steps + 1, 10):
        progress = 1 - math.exp(-4 * step / steps)
        value = start + (end - start) * progress + rng.gauss(0, 0.01) * start * (1 - step / steps)
        entries.append({"step": step, "loss": 2.3 * math.exp(-step / steps), "costs": {name: value}})
    return entries


def fake_trials() -> list[Trial]:
    """Two axes; one trial diverged."""
    points = [(0.3, 5e-4), (0.3, 5e-6), (0.1, 5e-4), (0.1, 5e-6)]
    found = [(None, "Loss is NaN after step 3. Lower the learning rate."), (0.71, None), (0.86, None), (0.855, None)]
    return [
        Trial(n, lr, decay, 0.9, 0.05, score, 2, 9000, 12.5 + n, lost, "" if lost else "top-1 accuracy")
        for n, ((lr, decay), (score, lost)) in enumerate(zip(points, found, strict=True), 1)
    ]


def fake_kernels() -> tuple[list[ChoiceMade], dict[str, Convolution], list[Probabilities]]:
    """Three sites: one changed, one as it was, and one that a later round took out."""
    sites = [("conv1", 7, 1, 32), ("layer2.0.conv2", 3, 1, 16), ("layer3.1.conv1", 5, 3, 8)]
    choices = [ChoiceMade(name, "convolution", "3x3 d1", f"{k}x{k} d{d}") for name, k, d, _ in sites]
    operators = {name: Convolution([k, k], [d, d], [3, 3], [1, 1], [n, n]) for name, k, d, n in sites}
    steps = list(range(0, 300, 10))
    rows = []
    for choice, (name, *_) in zip(choices, sites, strict=True):
        named = list(dict.fromkeys(["3x3 d1", choice.after, "9x9 d7", "9x9 d15"]))
        likely = [[1 / (1 + math.exp((i != named.index(choice.after)) * s / 100)) for i in range(3)] for s in steps]
        likely = [[*row, 0.0][: len(named)] for row in likely]
        rows.append(Probabilities(name, named, steps, [[p / sum(row) for p in row] for row in likely]))
    return choices, operators, rows


def fake_ranking() -> list[Ranked]:
    """Three configurations; the best two were scored."""
    found = []
    for index, (name, score, average, macs) in enumerate(
        [
            ("[4, 3, 2]", 0.871, 0.82, 20_377_216),
            ("[3, 3, 3]", 0.868, 0.83, 18_100_000),
            ("[6, 2, 1]", None, 0.71, 20.4e6),
        ]
    ):
        costs = {"flops": float(macs), "memory": 98_304.0, "latency": 0.98 + index / 10}
        found.append(Ranked(name, average, score, "top-1 accuracy", index % 2, costs, chosen=index == 0))
    return found


def fake_report() -> Report:
    """A CIFAR ResNet brought to half its multiply-adds, faster and a little less accurate."""
    rng = random.Random(0)
    widths = [Width("conv1", 16, 11, "Conv2d")]
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(3):
            removed = (stage, block) == (3, 1)
            first = 0 if removed else round(width * rng.uniform(0.35, 0.85))
            widths.append(Width(f"layer{stage}.{block}.conv1", width, first, "Conv2d"))
            second = 0 if removed else round(width * (0.69, 0.78, 0.9)[stage - 1])
            widths.append(Width(f"layer{stage}.{block}.conv2", width, second, "Conv2d"))
    widths.append(Width("linear", 10, 10, "Linear"))
    blocks = [BlockShape("conv1", [3, 3], [3, 3], [32, 32], [32, 32], [3, 16], [3, 11], False)]
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(3):
            side, gone = [64 >> stage] * 2, (stage, block) == (3, 1)
            inside = [] if gone else [width, round(width * 0.6), round(width * 0.8)]
            kernel, lowered = ([], []) if gone else ([3, 1 + 2 * (block % 2)], [side[0], side[0] // (1 + block)])
            name, residual = f"layer{stage}.{block}", block > 0 or stage == 1
            blocks.append(BlockShape(name, [3, 3], kernel, side, lowered, [width] * 3, inside, residual))
    blocks.append(BlockShape("linear", [], [], [], [], [64, 10], [51, 10], False))
    return Report(
        model="resnet20_cifar",
        model_class="compressor.backbones.resnet_cifar.ResNetCifar",
        search="figs",
        data="cifar10:data/cifar10",
        command="compress --model resnet20_cifar --data cifar10:data/cifar10 --budget-flops 50% --out out",
        weights="resnet20-cifar10.safetensors",
        input_shape=[1, 3, 32, 32],
        budgets=[BudgetResult("flops", "macs", "50%", 40_812_544, 20_406_272, 20_377_216)],
        costs=[
            CostResult("flops", "macs", 40_812_544, 20_377_216),
            CostResult("params", "params", 269_722, 141_893),
            CostResult("memory", "bytes", 131_072, 98_304),
        ],
        verification=Verification(3.1e-15),
        accuracy=Accuracy("test", 1000, 0.915, 0.862, 0.907),
        tuning=Tuning("short", "top-1 accuracy", False, "val", 500, 3, fake_trials()),
        latencies=[fake_latency(1.52, 0.98)],
        latency_prediction=LatencyPrediction(
            "onnxruntime-cpu 1.31.1, fp32, threads 2, batch 1, AMD EPYC 7763 (2 cores)",
            mean_error=0.031,
            kendall_tau=0.97,
            networks=4,
            points=412,
            estimated=["mish @8x8"],
            rounds=[{"predicted_ms": 0.75, "measured_ms": 0.78, "original_ms": 1.52, "limit_ms": 0.76, "used": 1.03}],
        ),
        quantisation=Quantisation(0.907, 0.904, "test", 1000, 580_113, 171_220, 256, fake_latency(0.98, 0.61)),
        sizes=[Size("ONNX file", 1_091_342, 580_113), Size("Weights", 1_081_220, 571_004)],
        files=[
            FileWritten("model.onnx", "onnx", 580_113, 4.2e-7, [1, 2, 5]),
            FileWritten("model.xml", "openvino", 612_004, 5.0e-7, [1, 2, 5]),
            FileWritten("model.rtx", "tensorrt-rtx", 702_213, None, [], ["No GPU here, so it was only built."]),
        ],
        fixed=[
            LeftAlone("linear", "aten.addmm", "the model's output"),
            LeftAlone("input", "aten.convolution", "the model's input"),
            *[LeftAlone(f"layer{i}.shortcut", "aten.constant_pad_nd", "pads channels on both sides") for i in (2, 3)],
        ],
        widths=widths,
        choices=[ChoiceMade("layer1.0.relu", "activation", "ReLU", "Hardtanh"), *fake_kernels()[0]],
        operators=fake_kernels()[1],
        probabilities=fake_kernels()[2],
        blocks=blocks,
        weight_sets=[
            Probabilities(
                each.name, ["1", "2"], [0, 100], [[0.5, 0.5], [1.0 - each.weight_set, float(each.weight_set)]]
            )
            for each in fake_ranking()
        ],
        ranking=fake_ranking(),
        cells=[Cell(["layer2.0.ops.conv3", "layer2.0.ops.conv5", "layer2.0.ops.pool"], ["layer2.0.ops.conv5"])],
        blocks_removed=["layer3.1"],
        attributes_changed=[
            AttributeChange("conv1", "out_channels", 16, 11),
            AttributeChange("bn1", "num_features", 16, 11),
        ],
        history=fake_history(40_812_544, 20_377_216, 4700),
        stage_seconds={
            "load": 0.4,
            "capture": 0.1,
            "search": 212.0,
            "trim": 0.2,
            "fine-tune": 244.0,
            "export": 3.1,
            "bench": 10.0,
        },
        seed=0,
        versions={"python": "3.11.7", "compressor": "0.1.0", "torch": "2.15.0", "onnxruntime": "1.31.1"},
        machine={"cpu": "AMD EPYC 7763", "cores": "2", "architecture": "x86_64", "system": "Linux 6.8"},
        created="2026-01-30T12:00:00+00:00",
    )


def slower_report() -> Report:
    """Random weights, two budgets, one missed, no data, and in the end slower than the original; many layers."""
    rng = random.Random(3)
    widths = [
        Width(
            f"features.denseblock{1 + i // 40}.denselayer{i % 40 + 1}.conv{1 + i % 2}",
            w,
            round(w * rng.uniform(0.3, 1)),
            "Conv2d",
        )
        for i, w in enumerate([64 + 4 * (i // 2) if i % 2 == 0 else 32 for i in range(160)])
    ]
    report = fake_report()
    report.model = "densenet121"
    report.model_class = "torchvision.models.densenet.DenseNet"
    report.search, report.data = "oneshot", None
    report.pretrained, report.weights = False, "random"
    report.accuracy = None
    report.widths, report.blocks_removed = widths, []
    report.blocks = [BlockShape(w.layer, [3], [1], [64], [64], [64, w.before], [64, w.after], False) for w in widths]
    report.budgets = [
        BudgetResult("flops", "macs", "1.5G", 2_834_161_664, 1_500_000_000, 1_498_211_000),
        BudgetResult("latency", "ms", "60%", 41.2, 24.72, 43.0),
    ]
    report.costs = [CostResult("params", "params", 7_978_856, 4_301_233)]
    report.latencies = [fake_latency(41.2, 43.0), fake_latency(39.0, 39.05, target="openvino-cpu")]
    report.history = [
        {"step": i, "costs": {"flops": 2.83e9 * (1 - 0.47 * i / 60), "latency": 41.2 - 0.02 * i}} for i in range(61)
    ]
    report.fixed = [
        LeftAlone(f"features.denseblock{i}", "aten.cat", "an operator without a rule mixes channels of two groups")
        for i in range(1, 12)
    ]
    report.warnings = ["No data was given, so nothing was trained or evaluated."]
    return report
