"""Random smaller networks of a model as ONNX files, for calibrating predictions and testing them.

Tracing a network into ONNX takes seconds to minutes; giving weights to a graph that is there takes a moment. So the
original is traced once (``exporters.formats.onnx_template``), and what is made from its graph is compared with the
trimmed PyTorch model. Where they differ (a size is written into the graph) the trimmed model is exported as any other.
So is one with other alternatives of a choice than the original has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from compressor.arrays import BoolArray, FloatArray, UnitMask
from compressor.errors import UsageError
from compressor.graph.graph import Graph
from compressor.graph.groups import Alternatives
from compressor.latency.predict import work_of
from compressor.search.constraints.projector import Projector
from compressor.trim.apply import trim
from compressor.trim.plan import plan
from exporters.example import as_example
from exporters.inputs import batch_axes

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Subnet:
    """A hard choice: units with the constant last entry, and blocks (``None`` keeps all)."""

    units: UnitMask
    gates: BoolArray | None = None


@dataclass(frozen=True)
class Made:
    """A network with the alternatives of a subnet in place: ``units`` and ``gates`` are the subnet's, in its own trace
    ``graph``."""

    model: nn.Module
    graph: Graph
    units: UnitMask
    gates: BoolArray | None = None


#: Makes the alternatives of a subnet in (a copy of) a model.
Maker = Callable[[nn.Module, Subnet], Made]


def random_choices(
    graph: Graph,
    count: int,
    *,
    seed: int = 0,
    narrowest: float = 0.25,
    decides: frozenset[str] | None = None,
) -> list[Subnet]:
    """Subnets whose widths lie around a common fraction each, from ``narrowest`` to all.

    Three of four keep multiples of 8 channels, as searches do; the others any number. Of choices with cheap and dear
    alternatives, narrow subnets have cheap ones and wide ones dear ones, as their sum would be much the same else.

    Args:
        decides: components that a method decides on, ``None`` for all; what is none of them stays as it is.
    """
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        projector = Projector(graph, [], round_to=1 if index % 4 == 3 else 8, decides=decides)
        around = narrowest + (1 - narrowest) * (index + random.random()) / count
        share = np.clip(around * random.uniform(0.7, 1.3, len(graph.groups)), narrowest / 2, 1.0)
        sizes = np.array([len(group) for group in graph.groups], dtype=np.int64)
        counts = projector.allowed(np.maximum((sizes * share).astype(np.int64), 1))
        kernels = [group.index for group in graph.groups if not group.ranked]
        counts[kernels] = projector.most[kernels]
        priority = random.random(graph.n_units)
        for choice in graph.choices:
            aim = (share[choice.index] - narrowest) / (1 - narrowest)
            priority[choice.units] = -np.abs(_dearness(graph, choice) - aim) - 0.2 * priority[choice.units]
        found.append(Subnet(projector.choose(counts, priority)))
    return found


def _dearness(graph: Graph, choice: Alternatives) -> FloatArray:
    """Where each alternative stands among those of its choice by its work: 0 the least, 1 the most."""
    work = np.zeros(len(choice))
    for operator in graph.operators:
        if operator.variant_units == tuple(choice.units.tolist()):
            work += [work_of(o, o.channels_in.full, o.channels_out.full) for o in operator.variants]
        for axis in operator.copies.axes:  # what runs under some alternatives alone
            which = np.isin(choice.units, axis.factors)
            work[which] += work_of(operator, operator.channels_in.full, operator.channels_out.full)
    low, high = work.min(), work.max()
    even = np.linspace(0.0, 1.0, len(choice))
    return np.asarray((work - low) / (high - low) if high > low else even)


class Subnets:
    """Writes subnets of one model into a folder.

    Args:
        model: never changed.
        example_inputs: a tensor, a tuple of arguments, or an ``exporters.example.Example``; one sample is taken.
        folder: where to; the original goes to ``original.onnx``.
        make: makes alternatives; needed for subnets with others than the model has.

    Attributes:
        exported: how many subnets had to be exported because the original's graph did not do.
    """

    def __init__(
        self, model: nn.Module, graph: Graph, example_inputs: Any, folder: Path, *, make: Maker | None = None
    ) -> None:
        self.model, self.graph, self.folder, self.make = copy.deepcopy(model.eval()), graph, folder, make
        example = as_example(example_inputs)
        batched = zip(example.tensors, batch_axes(example.tensors), strict=True)
        self.example = example.with_tensors([value[:1] if first else value for value, first in batched])
        self.exported = 0
        self._template_works = True
        self._other: dict[bytes, Path] = {}

    @cached_property
    def original(self) -> Path:
        """The file of the original. Raises ``ExporterError`` if it cannot be exported."""
        return self._filled(self.model, "original") or self.export(self.model, "original")

    @cached_property
    def _template(self) -> Path:
        from exporters.formats.onnx_template import write_template

        path = self.folder / "original.graph"
        write_template(self.model, self.example, path, dynamic_axes=None, check=False)
        return path

    def _filled(self, model: nn.Module, name: str) -> Path | None:
        """The file of a network with the original's graph; None if it has another."""
        from exporters.errors import ExportCheckError, UnsupportedExportError
        from exporters.formats.onnx_runtime import onnxruntime_run
        from exporters.formats.onnx_template import write_filled
        from exporters.traced import Comparison

        path = self.folder / f"{name}.onnx"
        comparison = Comparison(onnxruntime_run, (1,), _TOLERANCE, 0, "The file")
        try:
            write_filled(self._template, model, self.example, path, comparison)
        except (UnsupportedExportError, ExportCheckError):
            return None
        return path

    def export(self, model: nn.Module, name: str) -> Path:
        """The file of any model with the same inputs, as users get it. Raises ``ExporterError``."""
        from exporters.formats.onnx import OnnxExporter

        return OnnxExporter().export(model.eval(), self.example, self.folder / f"{name}.onnx", check=False).path

    def write(self, choice: Subnet, name: str) -> Path:
        """The file of one subnet.

        Raises:
            ExporterError: it has to be exported and cannot be.
            UsageError: it has other alternatives than the model, and nothing to ``make`` them was given.
        """
        whole = self.graph.all_units()
        if any((choice.units[c.units] != whole[c.units]).any() for c in self.graph.choices):
            return self._write_other(choice)
        small = trim(self.model, plan(self.model, self.graph, choice.units, choice.gates)).eval()
        if self._template_works:
            if (path := self._filled(small, name)) is not None:
                return path
            self._template_works = False
        self.exported += 1
        return self.export(small, name)

    def _write_other(self, choice: Subnet) -> Path:
        """The file of a subnet with other alternatives, each exported once."""
        key = choice.units.tobytes() + self.graph.gates(choice.gates).tobytes()
        if key not in self._other:
            if self.make is None:
                raise UsageError("A subnet has other alternatives than the model; pass make= to Subnets.")
            made = self.make(self.model, choice)
            small = trim(made.model, plan(made.model, made.graph, made.units, made.gates))
            self.exported += 1
            self._other[key] = self.export(small, f"other{len(self._other)}")
        return self._other[key]
