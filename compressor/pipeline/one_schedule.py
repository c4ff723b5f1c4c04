"""One schedule for a search and the fine-tuning after it, of methods that go on with theirs (``Method.continues``).

A second cycle would raise the rate again for a network that has been trained at a low one
(``benchmarks/accuracy/equal_training.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.search.result import SearchResult
from compressor.train.splits import steps_per_epoch

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.pipeline.settings import Settings


def continues(settings: Settings) -> bool:
    """Whether fine-tuning goes on with the search's schedule: not where its settings are tuned by themselves."""
    return settings.method.continues and settings.grid == "none"


def steps_after(settings: Settings, data: Data | None) -> int:
    """Steps of fine-tuning that go on with the search's schedule."""
    if data is None or not settings.finetune_epochs or not continues(settings):
        return 0
    return settings.finetune_epochs * steps_per_epoch(data.train, settings.batch_size, settings.accumulate)


def steps_before(settings: Settings, data: Data, decision: SearchResult) -> int:
    """Steps of the search whose schedule fine-tuning goes on with."""
    from compressor.search.training.learner import search_steps

    config: Any = settings.config
    return search_steps(data, config, settings.accumulate) if continues(settings) and decision.trained else 0
