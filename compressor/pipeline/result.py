"""What the Python API hands over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.rounds import known_whole
from compressor.pipeline.stages import Pipeline
from compressor.report import Report, summary_text

if TYPE_CHECKING:
    from exporters.axes import Asked


@dataclass(repr=False)
class Result:
    """What ``compress`` returns. As a text it is the report's summary.

    Attributes:
        model: the compressed network: an ordinary module of the original's class, in evaluation mode.
        architecture: what was done in all rounds of compression together; applies to a fresh original.
        report: what was asked, reached and measured.
    """

    model: nn.Module
    architecture: Architecture
    report: Report
    _example: Any = None

    def __str__(self) -> str:
        return summary_text(self.report)

    def __repr__(self) -> str:
        """One line: fields as they are would be all weights and indices."""
        return f"<{type(self).__name__} {str(self).partition(chr(10))[0]}>"

    def save(self, folder: str | Path) -> Path:
        """Write ``architecture.json``, ``model.safetensors``, ``report.json`` and ``report.html``.

        Load with ``compressor.load(folder, model=FreshOriginal())``. Raises ``CompressorError`` if writing fails.
        """
        from compressor.models import artifact

        artifact.save(folder, self.model, self.architecture, self.report, example_inputs=self._example)
        return Path(folder)

    def export(
        self,
        folder: str | Path,
        formats: tuple[str, ...] = ("onnx",),
        *,
        opset_version: int | None = None,
        dynamic_axes: Asked = "auto",
        **options: Any,
    ) -> list[Path]:
        """Export to runtimes' formats, each checked against PyTorch; returns the files.

        What was compressed with is what is exported: inputs given by keyword keep their names, numbers and text become
        constants of the file.

        Args:
            opset_version: ONNX operator set of the file; ``None`` takes the exporter's own.
            dynamic_axes: axes to leave open besides the batch, by input: ``{"input": {2: "length"}}``, checked at other
                sizes. ``"auto"`` opens the positions of sequences (tokens, signals) where the model lets them; ``None``
                opens none.
            options: for every exporter that knows them, such as ``calibration`` or ``precision``.

        Raises:
            UsageError: an option that a format does not have.
            exporters.errors.ExporterError: a format cannot be written, or computes something else than the model.
        """
        from compressor.deploy.exports import export_all

        if isinstance(formats, str):
            formats = (formats,)
        asked = {"opset_version": opset_version, "dynamic_axes": dynamic_axes, **options}
        return [info.path for info in export_all(self.model, self._example, folder, formats, **asked)]


def result_of(pipeline: Pipeline, report: Report) -> Result:
    """The result of a finished pipeline."""
    architecture = known_whole(pipeline.compressed, pipeline.architecture)
    return Result(pipeline.compressed.eval(), architecture, report, pipeline.example)
