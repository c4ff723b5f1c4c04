"""Random smaller networks of a model as ONNX files, for calibrating predictions and testing them.

Tracing a network into ONNX takes seconds to minutes; cutting the weights in a file that is there takes a moment. So the
original is exported once and its file cut, and what comes out is compared with the trimmed PyTorch model. Where they
differ (a size is written into the graph, a layout was folded into a weight) the trimmed model is exported as any other.
So is one with other alternatives of a choice than the original has, which no cutting gives.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.architecture.architecture import Architecture
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
        exported: how many subnets had to be exported because cutting the file did not do.
    """

    def __init__(
        self, model: nn.Module, graph: Graph, example_inputs: Any, folder: Path, *, make: Maker | None = None
    ) -> None:
        self.model, self.graph, self.folder, self.make = _distinct(model.eval()), graph, folder, make
        example = as_example(example_inputs)
        batched = zip(example.tensors, batch_axes(example.tensors), strict=True)
        self.example = example.with_tensors([value[:1] if first else value for value, first in batched])
        self.exported = 0
        self._cut_works = True
        self._without: dict[bytes, Path] = {}
        self._other: dict[bytes, Path] = {}

    @cached_property
    def original(self) -> Path:
        """The file of the original. Raises ``ExporterError`` if it cannot be exported."""
        return self.export(self.model, "original")

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
        architecture = plan(self.model, self.graph, choice.units, choice.gates)
        small = trim(self.model, architecture).eval()
        if self._cut_works:
            path = self.folder / f"{name}.onnx"
            # A weight may not be what its name says: then nothing is returned here, and the model exported below.
            with contextlib.suppress(ValueError, IndexError, KeyError):
                cut_onnx(self._whole(choice), self.graph, architecture, path)
                if self._same(small, path):
                    return path
            self._cut_works = False
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

    def _whole(self, choice: Subnet) -> Path:
        """The file that a subnet's is cut from: all channels, without the blocks that it lacks."""
        if choice.gates is None or choice.gates.all():
            return self.original
        key = choice.gates.tobytes()
        if key not in self._without:
            architecture = plan(self.model, self.graph, self.graph.all_units(), choice.gates)
            self._without[key] = self.export(trim(self.model, architecture), f"without{len(self._without)}")
        return self._without[key]

    def _same(self, small: nn.Module, path: Path) -> bool:
        from exporters.errors import ExporterError
        from exporters.formats.onnx import onnxruntime_run
        from exporters.inputs import flatten_outputs, random_inputs

        inputs = random_inputs([value.cpu() for value in self.example.tensors])
        device = next((p.device for p in small.parameters()), torch.device("cpu"))
        with torch.no_grad():
            found = self.example.run(small, [value.to(device) for value in inputs])
            wanted = [t.cpu().numpy() for _, t in flatten_outputs(found)]
        try:
            given = onnxruntime_run(path)(inputs)
        except ExporterError:
            return False
        return len(wanted) == len(given) and all(
            a.shape == b.shape and float(np.abs(a - b).max()) <= _TOLERANCE * max(float(np.abs(a).max()), 1e-6)
            for a, b in zip(wanted, given, strict=True)
        )


def _distinct(model: nn.Module) -> nn.Module:
    """A copy without constant vectors, such as the weights of fresh normalisations.

    Exporters store equal tensors of different layers once, and then they cannot be cut to different widths. Timings do
    not depend on values.
    """
    changed = copy.deepcopy(model)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*changed.parameters(), *changed.buffers()):
            if (
                tensor.ndim == 1
                and len(tensor) > 1
                and tensor.is_floating_point()
                and bool((tensor == tensor[0]).all())
            ):
                tensor += 0.01 * torch.rand(tensor.shape, generator=random).to(tensor)
    return changed


def cut_onnx(source: Path, graph: Graph, architecture: Architecture, path: Path) -> None:
    """Write ``source``, an export of the original, with the weights cut to ``architecture``.

    Raises:
        KeyError, ValueError, IndexError: the file's weights are not the model's.
    """
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(str(source))
    named = {name: parameter.name for parameter in graph.parameters.values() for name in parameter.names}
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            raise ValueError(f"The weights of {node.name or node.op_type} are in another order than the model's.")
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 2 or node.input[1] not in named:
            continue
        place = node.input[1].rpartition(".")[0]
        groups = architecture.attributes.get(place, {}).get("groups")
        if groups is not None:
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i = int(groups)
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias in weights and bias not in named and node.op_type == "Conv":  # a normalisation folded into it
            _cut(weights[bias], [architecture.kept(named[node.input[1]], 0)], numpy_helper)
    for name, tensor in weights.items():
        if name in named:
            parameter = graph.parameters[named[name]]
            kept = [architecture.kept(parameter.name, d) for d in range(len(parameter.shape))]
            if tuple(tensor.dims) != parameter.shape:
                raise ValueError(
                    f"{name} has the shape {tuple(tensor.dims)} in the file, {parameter.shape} in the model."
                )
            _cut(tensor, kept, numpy_helper)
    _free_sizes(proto.graph, weights, numpy_helper)
    onnx.save(proto, str(path))


def _free_sizes(graph: Any, weights: dict[str, Any], numpy_helper: Any) -> None:
    """Let the last size of every constant reshape follow from the data, as flattening before a head does."""
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in weights:
            shape = numpy_helper.to_array(weights[node.input[1]]).copy()
            if len(shape) > 1:
                shape[0], shape[-1] = (0 if shape[0] == -1 else shape[0]), -1
                weights[node.input[1]].CopyFrom(numpy_helper.from_array(shape, node.input[1]))
                for attribute in [a for a in node.attribute if a.name == "allowzero"]:
                    node.attribute.remove(attribute)
    del graph.value_info[:]


def _cut(tensor: Any, kept: Sequence[Sequence[int]], numpy_helper: Any) -> None:
    values = numpy_helper.to_array(tensor)
    for axis, indices in enumerate(kept):
        if len(indices) != values.shape[axis]:
            values = np.take(values, indices, axis=axis)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
