"""What a FiGS step costs beside a plain training step: ResNet-20 on CIFAR-sized images, batch 64, in turn.

    python -m benchmarks.speed.figs_step [--steps 60] [--threads N] [--write benchmarks/speed/figs_step.md]

All networks are the same and take the same batches; every step is forward, loss, backward and SGD with momentum,
images channels last. FiGS adds the masks, the expected cost with its multiplier, and the step of the logits; once it
has settled on half of the multiply-adds, the trimmed network is trained by itself. Each ratio is that of two
neighbouring steps, so that other load on the machine falls on both.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from compressor.backbones.resnet_cifar import resnet20_cifar
from compressor.costs import build
from compressor.graph import capture
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.learner import FigsLearner
from compressor.search.training.decided_network import Trimmed
from compressor.train import Hooks

BATCH = 64


class Runner:
    """One network with its optimizer and hooks."""

    def __init__(self, model: nn.Module, hooks: Hooks) -> None:
        self.model, self.hooks = model, hooks
        self.optimizers = [
            torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4),
            *hooks.optimizers().values(),
        ]

    def step(self, inputs: Tensor, targets: Tensor, index: int, total: int) -> float:
        """Milliseconds of one step."""
        started = time.perf_counter()
        loss = nn.functional.cross_entropy(self.hooks.forward(self.model, inputs), targets)
        penalty = self.hooks.penalty()
        (loss if penalty is None else loss + penalty).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.hooks.after_step(index, total)
        return (time.perf_counter() - started) * 1e3


KINDS = ("plain", "FiGS, sampling", "FiGS, once settled")


def measure(steps: int) -> dict[str, list[float]]:
    """Milliseconds of the steps of each kind, taken in turn."""
    torch.manual_seed(0)
    model = resnet20_cifar().train()
    graph = capture(model, torch.randn(1, 3, 32, 32))
    flops = build("flops", graph)
    projector = Projector(graph, [Constraint(flops, 0.5 * flops.original)], round_to=None)
    sampling, deciding = (FigsLearner(copy.deepcopy(model), projector, FigsConfig()) for _ in range(2))
    with torch.no_grad():
        deciding.logits.normal_(deciding.config.start)  # a decision among channels that differ
    settled = Trimmed(deciding.masking.model, graph, deciding.decide()).model
    runners = {
        "plain": Runner(model, Hooks()),
        "FiGS, sampling": Runner(sampling.masking.model, sampling),
        "FiGS, once settled": Runner(settled, Hooks()),
    }
    inputs = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (BATCH,))
    warm_up, total = 5, 1_000_000  # so many that the other search does not settle meanwhile
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for i in range(warm_up + steps):
        for k in range(len(KINDS)):
            kind = KINDS[(i + k) % len(KINDS)]
            taken[kind].append(runners[kind].step(inputs, targets, i, total))
    return {kind: each[warm_up:] for kind, each in taken.items()}


def table(taken: dict[str, list[float]]) -> str:
    """The result as Markdown."""
    lines = [
        "| step | median, ms | fastest, ms | of plain (quartiles) | fastest of plain |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    plain = taken["plain"]
    for kind, each in taken.items():
        ratios = [b / a for a, b in zip(plain, each, strict=True)]
        low, _, high = quantiles(ratios, n=4)
        spread = f" ({low:.3f} to {high:.3f})" if kind != "plain" else ""
        lines.append(
            f"| {kind} | {median(each):.1f} | {min(each):.1f} | {median(ratios):.3f}{spread} "
            f"| {min(each) / min(plain):.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", type=Path, help="write the result to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = table(measure(options.steps))
    print(text)
    if options.write:
        machine = (
            f"{platform.system()} {platform.machine()}, {options.threads} threads, Python "
            f"{platform.python_version()}, torch {torch.__version__}"
        )
        options.write.write_text(
            "# A FiGS step beside a plain training step\n\nResNet-20, batch 64, images of 32x32. Made by `python "
            f"-m benchmarks.speed.figs_step --write benchmarks/speed/figs_step.md`, {options.steps} steps of each in turn.\n\n"
            f"Machine: {machine}.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
