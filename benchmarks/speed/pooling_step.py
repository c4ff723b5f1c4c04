"""What a step of the search for where to pool costs beside a plain step of the same configuration.

    python -m benchmarks.speed.pooling_step [--threads N] [--mixtures 4] [--batch 64] [--write benchmarks/speed/pooling_step.md]

Steps take turns: forward, loss, backward and SGD of the configuration as an ordinary network, and the same of a weight
set in the search, with its draw, its score on held-out samples and its balance. Every configuration comes in the order
of a shuffle; ratios are of the two steps of one configuration that follow each other.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor.costs import build
from compressor.data import from_loaders
from compressor.graph import capture
from compressor.graph.choices import add_choices
from compressor.models import load_model
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.pooling.config import PoolingConfig
from compressor.search.methods.pooling.held_out import HeldOut
from compressor.search.methods.pooling.learner import PoolingLearner
from compressor.search.methods.pooling.weight_sets import WeightSets

CASES = {"resnet20_cifar": (3, 32, 32), "resnet18": (3, 64, 64), "mobilenet_v2": (3, 64, 64)}


def measure(name: str, shape: tuple[int, ...], batch: int, mixtures: int, turns: int) -> dict[str, Any]:
    """Median seconds of both kinds of step, and the median of their ratios."""
    torch.manual_seed(0)
    model = load_model(name, weights="none", example_shape=shape, num_classes=10, seed=0).model.train()
    graph = capture(model.eval(), torch.randn(2, *shape))
    add_choices(model, graph, ["pooling"])
    (choice,) = graph.choices
    projector = Projector(
        graph, [Constraint(build("params", graph), 1e12)], decides=frozenset({"pooling"}), depth=False
    )
    config = PoolingConfig(mixtures=mixtures, batch_size=batch)
    loader = DataLoader(TensorDataset(torch.randn(4 * batch, *shape), torch.arange(4 * batch) % 10), batch_size=batch)
    data = from_loaders(loader, loader)
    sets = WeightSets(model.train(), choice.alternatives, mixtures, free=None)
    held_out = HeldOut(data, max(1, round(config.validation * batch)), 0, None)
    learner = PoolingLearner(sets, projector, choice, range(1, len(choice)), config, data, held_out, None)
    x, y = torch.randn(batch, *shape), torch.arange(batch) % 10
    parameters = [*model.parameters(), *sets.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-3, fused=True)
    optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in parameters})
    order = torch.randperm(len(choice) - 1).tolist()
    plain, searched = [], []
    for step in range(-2, turns):
        configuration = order[step % len(order)]
        network = sets.rewritten(configuration + 1, 0).train()
        own = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3, fused=True)
        own.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in network.parameters()})
        sets.network(configuration + 1, 0)  # made once in a search, not in every step

        def plain_step(network: nn.Module = network, own: torch.optim.Optimizer = own) -> float:
            started = time.perf_counter()
            nn.functional.cross_entropy(network(x), y).backward()
            own.step()
            own.zero_grad()
            return time.perf_counter() - started

        def search_step(configuration: int = configuration, step: int = max(step, 0)) -> float:
            started = time.perf_counter()
            learner.before_step(step, turns)
            learner._drawn = configuration, 0  # the draw above is of another one
            nn.functional.cross_entropy(learner.forward(model, x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            learner.after_step(step, turns)
            return time.perf_counter() - started

        both = (plain_step, search_step) if step % 2 else (search_step, plain_step)
        for each in both:
            each()  # warm
        took = {each: each() for each in both}
        if step >= 0:
            plain.append(took[plain_step])
            searched.append(took[search_step])
    ratios = [b / a for a, b in zip(plain, searched, strict=True)]
    return {
        "model": name,
        "size": f"{shape[1]}x{shape[2]}",
        "configurations": len(choice) - 1,
        "plain": statistics.median(plain),
        "searched": statistics.median(searched),
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--mixtures", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    lines = [
        "| model | input | configurations | plain step, s | step of the search, s | ratio |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, shape in CASES.items():
        row = measure(name, shape, given.batch, given.mixtures, given.turns)
        lines.append(
            f"| {row['model']} | {row['size']} | {row['configurations']} | {row['plain']:.4f} | "
            f"{row['searched']:.4f} | {row['ratio']:.2f} |"
        )
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    if given.write:
        machine = f"{platform.system()} {platform.machine()}, {given.threads} threads, torch {torch.__version__}"
        given.write.write_text(
            "# A step of the search for where to pool\n\nMade by `python -m benchmarks.speed.pooling_step --threads "
            f"{given.threads} --write benchmarks/speed/pooling_step.md`; batch {given.batch}, {given.mixtures} weight sets, "
            f"medians of {given.turns} pairs of steps in turn. Machine: {machine}.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
