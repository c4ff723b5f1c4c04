"""What a search step of DASH costs in each form of its mixtures: figures 2 and 3 of the paper, and CIFAR-sized images.

    python -m benchmarks.speed.aggregated_convolution [--batch 16] [--threads N] [--only operations length images layer batch_128] [--write benchmarks/speed/aggregated_convolution.md]

The network is the paper's one for sequences: three residual blocks of three convolutions, here all mixtures of 64
channels, with batch norm and ReLU, over sequences of one channel; for images one such block of mixtures. A step is
forward, loss and backward. Forms take turns, so that other load on the machine falls on all; a form whose step takes
longer than ``--patience`` seconds runs once. "auto" is warmed up by one step, in which it measures and remembers.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from compressor.nn import AggConv1d, AggConv2d
from compressor.nn.aggregated.remembered import VARIABLE

FORMS = ("results", "weights", "fft", "auto")
CHANNELS = 64


class Block(nn.Module):
    """A residual block of three mixtures."""

    def __init__(self, axes: int, inside: int, kernels: Sequence[int], dilations: Sequence[int]) -> None:
        super().__init__()
        mixture: Any = (AggConv1d, AggConv2d)[axes - 1]
        norm: Any = (nn.BatchNorm1d, nn.BatchNorm2d)[axes - 1]
        conv: Any = (nn.Conv1d, nn.Conv2d)[axes - 1]
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [mixture(CHANNELS if i else inside, CHANNELS, kernels, dilations), norm(CHANNELS), nn.ReLU()]
        self.branch = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Identity() if inside == CHANNELS else conv(inside, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class Network(nn.Module):
    """Blocks, global pooling and a classifier."""

    def __init__(self, axes: int, blocks: int, inside: int, kernels: Sequence[int], dilations: Sequence[int]) -> None:
        super().__init__()
        widths = [inside, *[CHANNELS] * (blocks - 1)]
        self.blocks = nn.Sequential(*(Block(axes, width, kernels, dilations) for width in widths))
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(x).flatten(2).mean(2))
        return y


def step(model: nn.Module, x: Tensor) -> float:
    """Seconds of forward, loss and backward."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    y = model(x)
    (nn.functional.cross_entropy(y, torch.arange(len(x)) % 10) if y.dim() == 2 else y.square().mean()).backward()
    return time.perf_counter() - started


def in_turn(model: nn.Module, x: Tensor, turns: int, patience: float, forms: Sequence[str]) -> dict[str, Any]:
    """Seconds of a step by form, and the forms that "auto" took."""

    def timed(form: str) -> float:
        for each in model.modules():
            if isinstance(each, AggConv1d | AggConv2d):
                each.form = form
        return step(model, x)

    first = {form: timed(form) for form in reversed(forms)}  # warm-up; of "auto", with its measurements
    taken: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(turns):
        for form in forms if turn % 2 == 0 else reversed(forms):
            if form == "auto" or first[form] <= patience:
                taken[form].append(timed(form))
    used = [each.form_used for each in model.modules() if isinstance(each, AggConv1d | AggConv2d)] if taken else []
    timed("auto")
    used = [each.form_used for each in model.modules() if isinstance(each, AggConv1d | AggConv2d)]
    found: dict[str, Any] = {form: median(taken[form] or [first[form]]) for form in forms}
    pairs = {form: [a / b for a, b in zip(taken[form], taken["auto"], strict=True)] for form in forms if taken[form]}
    best = min(pairs, key=lambda form: median(pairs[form]) if form != "auto" else 9e9)
    found |= {"first": first["auto"], "used": " ".join(sorted({str(u) for u in used})), "of": 1 / median(pairs[best])}
    found["once"] = [form for form in forms if not taken[form]]
    return found


def spaces(c: int) -> tuple[list[int], list[int]]:
    """K and D of figure 2."""
    return [2 * p + 1 for p in range(1, c + 1)], [2**q - 1 for q in range(1, c + 1)]


def operations(batch: int) -> list[tuple[str, nn.Module, Tensor]]:
    """Figure 2: operations at n = 1000."""
    return [(f"{c * c} operations", Network(1, 3, 1, *spaces(c)), torch.randn(batch, 1, 1000)) for c in (3, 4, 5, 6, 7)]


def length(batch: int) -> list[tuple[str, nn.Module, Tensor]]:
    """Figure 3: samples with 25 operations."""
    return [(f"n = {2**e}", Network(1, 3, 1, *spaces(5)), torch.randn(batch, 1, 2**e)) for e in range(5, 13)]


def images(batch: int) -> list[tuple[str, nn.Module, Tensor]]:
    """CIFAR's size, the 16 operations of AggConv2d."""
    model = Network(2, 1, 3, (3, 5, 7, 9), (1, 3, 7, 15))
    return [(f"32x32, 16 operations, batch {batch}", model, torch.randn(batch, 3, 32, 32))]


def batch_128(batch: int) -> list[tuple[str, nn.Module, Tensor]]:
    """The paper's batch of 128 at n = 1000, fewest and most operations."""
    return [(f"{c * c} operations", Network(1, 3, 1, *spaces(c)), torch.randn(128, 1, 1000)) for c in (3, 7)]


def layer(batch: int) -> list[tuple[str, nn.Module, Tensor]]:
    """One inner layer at the paper's batch of 128."""
    return [
        (
            f"{c * c} operations",
            AggConv1d(CHANNELS, CHANNELS, *spaces(c)),
            torch.randn(128, CHANNELS, 1000).requires_grad_(),
        )
        for c in (3, 5, 7)
    ]


TABLES: dict[str, Callable[[int], list[tuple[str, nn.Module, Tensor]]]] = {
    each.__name__: each for each in (operations, length, images, layer, batch_128)
}


def table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    """The result as Markdown."""
    lines = [
        "| | results, s | weights, s | fft, s | auto, s | results / fft | weights / fft | auto / best | auto took | first step of auto, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for name, r in rows:
        times = " | ".join(f"{r[form]:.3f}{'*' if form in r['once'] else ''}" if form in r else "" for form in FORMS)
        ratios = " | ".join(f"{r[form] / r['fft']:.1f}" if form in r else "" for form in ("results", "weights"))
        ratios += f" | {r['of']:.2f}"
        lines.append(f"| {name} | {times} | {ratios} | {r['used']} | {r['first']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--patience", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", choices=tuple(TABLES), default=tuple(TABLES))
    parser.add_argument("--without", choices=("results", "weights"), help="a form to leave out, as it takes minutes")
    parser.add_argument("--write", type=Path, help="write the result to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    parts = []
    forms = [form for form in FORMS if form != options.without]
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = str(Path(folder) / "lut.sqlite")  # measured here, whatever is known
        for name in options.only:
            rows = []
            for case, model, x in TABLES[name](options.batch):
                rows.append((case, in_turn(model.train(), x, options.turns, options.patience, forms)))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
            parts.append(f"## {(TABLES[name].__doc__ or '').strip()}\n\n{table(rows)}")
    text = "\n\n".join(parts)
    print(text)
    if options.write:
        machine = (
            f"{platform.system()} {platform.machine()}, {options.threads} threads, Python "
            f"{platform.python_version()}, torch {torch.__version__}"
        )
        options.write.write_text(
            "# A step with aggregated convolutions, by form\n\nMade by `python -m benchmarks.speed.aggregated_convolution "
            f"--write benchmarks/speed/aggregated_convolution.md`, batch {options.batch} where nothing else is said, medians of "
            f"{options.turns} steps in turn; * was run once.\n\nMachine: {machine}.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
