"""What was asked, what was reached, and how it was measured: as JSON, as text for a terminal, as one HTML page."""

from __future__ import annotations

from compressor.report.page.html import render_html
from compressor.report.ranking import Ranked
from compressor.report.records import (
    SCHEMA_VERSION,
    Accuracy,
    BudgetResult,
    CostResult,
    FileWritten,
    LatencyPrediction,
    PairedTiming,
    PredictionError,
    Quantisation,
    Report,
    Size,
    Verification,
)
from compressor.report.structure import (
    AttributeChange,
    BlockShape,
    Cell,
    ChoiceMade,
    Convolution,
    LeftAlone,
    Probabilities,
    Width,
)
from compressor.report.text import summary_text
from compressor.report.tuning import Trial, Tuning

__all__ = [
    "SCHEMA_VERSION",
    "Accuracy",
    "AttributeChange",
    "BlockShape",
    "BudgetResult",
    "Cell",
    "ChoiceMade",
    "Convolution",
    "CostResult",
    "FileWritten",
    "LatencyPrediction",
    "LeftAlone",
    "PairedTiming",
    "PredictionError",
    "Probabilities",
    "Quantisation",
    "Ranked",
    "Report",
    "Size",
    "Trial",
    "Tuning",
    "Verification",
    "Width",
    "render_html",
    "summary_text",
]
