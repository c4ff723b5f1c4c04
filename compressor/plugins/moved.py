"""Modules by the names they had before the source was sorted into rooms: imports of them go on working, with a warning.

To be removed with the next release but one.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Former names, with the modules that hold what was there.
MOVED = {
    "compressor.artifact": "compressor.models.artifact",
    "compressor.bench": "compressor.deploy.timing compressor.deploy.exports compressor.deploy.deliver",
    "compressor.carried": "compressor.train.optimizer_state",
    "compressor.codec": "compressor.storage.codec",
    "compressor.computed": "compressor.nn.generated compressor.train.generated",
    "compressor.config": "compressor.jobs.config compressor.budget compressor.pipeline.defaults exporters.registry compressor.options.shared compressor.search.constraints.wishes compressor.options compressor.storage.places",
    "compressor.console": "compressor.pipeline.console",
    "compressor.copying": "compressor.nn.copying",
    "compressor.costs.latency": "compressor.latency.term",
    "compressor.delivery": "compressor.pipeline.delivery",
    "compressor.entry": "compressor.pipeline.entry",
    "compressor.files": "compressor.storage.files",
    "compressor.generators": "compressor.process.generators",
    "compressor.graph.accounts": "compressor.graph.analysis.cost_terms",
    "compressor.graph.analyze": "compressor.graph.analysis.units",
    "compressor.graph.apply_rules": "compressor.graph.rules.apply",
    "compressor.graph.batch": "compressor.graph.inputs.batch",
    "compressor.graph.blocks": "compressor.graph.analysis.blocks",
    "compressor.graph.collect": "compressor.graph.analysis.runtime_operators",
    "compressor.graph.dataflow": "compressor.graph.analysis.dataflow",
    "compressor.graph.dims": "compressor.graph.recording.dims",
    "compressor.graph.direct": "compressor.graph.recording.fast_path",
    "compressor.graph.effective": "compressor.graph.analysis.effective",
    "compressor.graph.flow": "compressor.graph.labels.flow",
    "compressor.graph.forward": "compressor.graph.recording.forward",
    "compressor.graph.further": "compressor.graph.recording.further",
    "compressor.graph.gates": "compressor.graph.analysis.gates",
    "compressor.graph.kernels": "compressor.graph.analysis.kernels",
    "compressor.graph.mentions": "compressor.graph.analysis.mentions",
    "compressor.graph.module_calls": "compressor.graph.analysis.module_calls",
    "compressor.graph.modules": "compressor.nn.modules",
    "compressor.graph.ranges": "compressor.graph.analysis.value_ranges",
    "compressor.graph.reach": "compressor.graph.analysis.reach",
    "compressor.graph.record": "compressor.graph.recording.recorder compressor.graph.recording.values compressor.graph.recording.module_stack",
    "compressor.graph.reduction": "compressor.graph.analysis.reduction",
    "compressor.graph.removal": "compressor.graph.analysis.removal",
    "compressor.graph.resolution": "compressor.graph.analysis.resolution",
    "compressor.graph.scalars": "compressor.graph.labels.scalars",
    "compressor.graph.shapes": "compressor.graph.recording.meta_shapes",
    "compressor.graph.stand_ins": "compressor.nn.swap compressor.graph.recording.traceable_attributes",
    "compressor.graph.streams": "compressor.graph.analysis.streams",
    "compressor.growth": "compressor.pipeline.growth",
    "compressor.history": "compressor.architecture.history",
    "compressor.importing": "compressor.plugins.importing",
    "compressor.inputs": "compressor.models.example_inputs",
    "compressor.int8": "compressor.deploy.int8",
    "compressor.job": "compressor.storage.job",
    "compressor.latency.hold": "compressor.latency.refinement",
    "compressor.latency.session": "compressor.latency.target",
    "compressor.lock": "compressor.storage.lock",
    "compressor.main_job": "compressor.jobs.run",
    "compressor.mask_gradients": "compressor.masks.gradients",
    "compressor.models.sources.folder": "compressor.models.saved_folder",
    "compressor.multihead": "compressor.nn.multihead",
    "compressor.outline": "compressor.report.block_table",
    "compressor.patterns": "compressor.graph.patterns",
    "compressor.quantization": "compressor.nn.quantization",
    "compressor.ranks": "compressor.process.ranks",
    "compressor.reading": "compressor.storage.reading",
    "compressor.registry": "compressor.plugins.registry",
    "compressor.report.charts": "compressor.report.page.charts",
    "compressor.report.html": "compressor.report.page.html",
    "compressor.report.markup": "compressor.report.page.markup",
    "compressor.report.outline": "compressor.report.page.outline",
    "compressor.report.provenance": "compressor.report.page.provenance",
    "compressor.report.sections": "compressor.report.page.sections",
    "compressor.report.style": "compressor.report.page.style",
    "compressor.reporting": "compressor.pipeline.summary",
    "compressor.resampling": "compressor.nn.resampling",
    "compressor.search.closer": "compressor.search.constraints.neighbours",
    "compressor.search.coarser": "compressor.search.methods.dnarch.kernel_resampling",
    "compressor.search.components": "compressor.search.methods.dnarch.components",
    "compressor.search.decision": "compressor.search.methods.dnarch.decision",
    "compressor.search.depth": "compressor.search.constraints.block_choice",
    "compressor.search.dnarch": "compressor.search.methods.dnarch.learner compressor.search.methods.dnarch.method",
    "compressor.search.dnarch_config": "compressor.search.methods.dnarch.config",
    "compressor.search.even": "compressor.search.constraints.channel_multiples",
    "compressor.search.fading": "compressor.search.methods.figs.fading",
    "compressor.search.figs": "compressor.search.methods.figs.learner compressor.search.methods.figs.sampling compressor.search.methods.figs.decision compressor.search.methods.figs.method",
    "compressor.search.figs_config": "compressor.search.methods.figs.config",
    "compressor.search.learning": "compressor.search.training.learner",
    "compressor.search.live": "compressor.search.training.shrinking",
    "compressor.search.mask_adam": "compressor.search.methods.dnarch.mask_adam",
    "compressor.search.multipliers": "compressor.search.constraints.multipliers",
    "compressor.search.oneshot": "compressor.search.methods.oneshot.method compressor.search.constraints.greedy",
    "compressor.search.oneshot_config": "compressor.search.methods.oneshot.config",
    "compressor.search.prefix": "compressor.masks.ordered",
    "compressor.search.project": "compressor.search.constraints.projector compressor.arrays",
    "compressor.search.settled": "compressor.search.training.decision_state",
    "compressor.search.shadows": "compressor.search.training.swapped_tensors",
    "compressor.search.trimmed": "compressor.search.training.decided_network",
    "compressor.search.wanted": "compressor.search.constraints.wanted",
    "compressor.search.worthwhile": "compressor.search.methods.dnarch.least_savings",
    "compressor.session": "compressor.pipeline.session",
    "compressor.settings": "compressor.pipeline.settings",
    "compressor.spectral": "compressor.nn.spectral",
    "compressor.stream": "compressor.nn.indexed_stream",
    "compressor.stubs": "compressor.nn.stubs",
    "compressor.tensors": "compressor.nn.tensors",
    "compressor.train.checkpoint": "compressor.train.resume.checkpoint",
    "compressor.train.distill": "compressor.train.objectives.distill",
    "compressor.train.evaluate": "compressor.train.objectives.evaluate",
    "compressor.train.losses": "compressor.train.objectives.losses",
    "compressor.train.objective": "compressor.train.objectives.objective",
    "compressor.train.outputs": "compressor.train.objectives.outputs",
    "compressor.train.progress": "compressor.process.progress",
    "compressor.train.state": "compressor.train.resume.state",
    "compressor.train.tree": "compressor.train.resume.tree",
    "compressor.training": "compressor.pipeline.training",
    "compressor.walk": "compressor.nn.walk",
    "exporters.onnx": "exporters.formats.onnx",
    "exporters.onnx_int8": "exporters.formats.onnx_int8",
    "exporters.onnx_source": "exporters.formats.onnx_source",
    "exporters.openvino": "exporters.formats.openvino",
    "exporters.tensorrt": "exporters.formats.tensorrt",
    "exporters.tensorrt_build": "exporters.formats.tensorrt_build",
    "exporters.tensorrt_engine": "exporters.formats.tensorrt_engine",
    "exporters.tensorrt_rtx": "exporters.formats.tensorrt_rtx",
    "exporters.torch_export": "exporters.formats.torch_export",
    "profilers.layer_onnx": "profilers.layers.layer_onnx",
    "profilers.layer_timer": "profilers.layers.layer_timer",
    "profilers.onnxruntime_cpu": "profilers.runtimes.onnxruntime_cpu",
    "profilers.onnxruntime_cuda": "profilers.runtimes.onnxruntime_cuda",
    "profilers.openvino_cpu": "profilers.runtimes.openvino_cpu",
    "profilers.simulated": "profilers.runtimes.simulated profilers.runtimes.simulated_work profilers.runtimes.simulated_module",
    "profilers.simulated_work": "profilers.runtimes.simulated_work profilers.runtimes.simulated_module",
    "profilers.tensorrt": "profilers.runtimes.tensorrt",
    "profilers.tensorrt_family": "profilers.runtimes.tensorrt_family",
    "profilers.tensorrt_rtx": "profilers.runtimes.tensorrt_rtx",
    "profilers.torch_cpu": "profilers.runtimes.torch_cpu",
    "profilers.torch_cuda": "profilers.runtimes.torch_cuda",
}


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _Forwarding(MOVED[fullname].split())) if fullname in MOVED else None


class _Forwarding(Loader):
    def __init__(self, targets: list[str]) -> None:
        self._targets = targets

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        warnings.warn(
            f"{module.__name__} has moved to {' and '.join(self._targets)}; import it from there.",
            DeprecationWarning,
            stacklevel=2,
        )
        vars(module)["__getattr__"] = self._find

    def _find(self, name: str) -> Any:
        if not (name.startswith("__") and name.endswith("__")):
            for target in self._targets:
                found = importlib.import_module(target)
                if hasattr(found, name):
                    return getattr(found, name)
        raise AttributeError(f"module {self._targets[0]!r} has no attribute {name!r}")


def install() -> None:
    """Let former names be imported. Harmless when called again."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
