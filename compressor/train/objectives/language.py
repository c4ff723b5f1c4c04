"""What a language model learns: the next token at every position, judged by perplexity."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compressor.data.task import IGNORED
from compressor.errors import DataError
from compressor.train.objectives.distill import distillation_loss
from compressor.train.objectives.losses import LossFn
from compressor.train.objectives.outputs import primary_output
from compressor.train.objectives.scorers import Scored


def next_token_loss(label_smoothing: float = 0.0) -> LossFn:
    """Cross entropy of logits (N, L, vocabulary) and the tokens (N, L) that follow, its mean over those that count."""

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        logits = primary_output(outputs).float()
        return functional.cross_entropy(
            logits.flatten(0, -2), targets.flatten().long(), ignore_index=IGNORED, label_smoothing=label_smoothing
        )

    return loss


def language_distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Scalar loss between logits (N, L, vocabulary). Raises ``TrainingError`` if they differ in shape."""
    return distillation_loss(student.flatten(0, -2), teacher.flatten(0, -2), temperature)


def check_tokens(outputs: Any, targets: Any) -> None:
    """Refuse outputs that are no logits of a language model for these targets. Raises ``DataError``."""
    logits = primary_output(outputs)
    if not isinstance(targets, Tensor) or logits.dim() != targets.dim() + 1 or logits.shape[:-1] != targets.shape:
        raise DataError(
            f"The model's output has shape {tuple(logits.shape)}; a language model gives (N, L, vocabulary) for tokens "
            f"of shape {tuple(getattr(targets, 'shape', ()))}. Use one, such as an hf: model with a head ForCausalLM."
        )
    highest = int(targets.max()) if targets.numel() else 0
    if highest >= logits.shape[-1]:
        raise DataError(f"A token is {highest}, but the model knows {logits.shape[-1]}; use its own tokenizer.")


class Perplexity:
    """The exponential of the mean cross entropy of a token."""

    def of_batch(self, outputs: Any, targets: Any) -> tuple[Tensor, int]:
        """The sum of the cross entropies, and over how many tokens."""
        logits = primary_output(outputs).float()
        total = functional.cross_entropy(
            logits.flatten(0, -2), targets.flatten().long(), ignore_index=IGNORED, reduction="sum"
        )
        return total.double(), int((targets != IGNORED).sum())

    def of_all(self, kept: list[Any]) -> Scored | None:
        """See ``Scorer.of_all``."""
        count = sum(of for _, of in kept)
        if not count:
            return None
        mean = float(torch.stack([total for total, _ in kept]).sum()) / count
        return Scored(math.exp(mean) if mean < 700 else math.inf)
