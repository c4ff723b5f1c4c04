"""Knowledge distillation (Hinton, Vinyals and Dean, 2015): learn from the logits of the original network.

With temperature T, loss = T^2 KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch and, where
every pixel has logits of its own, over the pixels. The factor T^2 keeps the gradients' size independent of T. Labels
that do not exclude each other are a distribution over yes and no each: softmax becomes the sigmoid, and the divergence
is averaged over the labels, too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from compressor.errors import TrainingError


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Scalar loss between logits of shape (N, classes, ...), class axis 1.

    Raises:
        TrainingError: the two differ in shape.
    """
    _require_equal(student, teacher)
    # float32 under mixed precision: differences of small log-probabilities drown in half precision.
    student_log = functional.log_softmax(student.float() / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher.float() / temperature, dim=1)
    divergence = torch.sum(teacher_log.exp() * (teacher_log - student_log), dim=1)
    return divergence.mean() * temperature**2


def label_distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Scalar loss between logits of labels, (N, labels).

    Raises:
        TrainingError: the two differ in shape.
    """
    _require_equal(student, teacher)
    ours, theirs = student.float() / temperature, teacher.float() / temperature
    divergence = torch.zeros_like(ours)
    for sign in (1, -1):  # that the label applies, and that it does not
        wanted = functional.logsigmoid(sign * theirs)
        divergence = divergence + wanted.exp() * (wanted - functional.logsigmoid(sign * ours))
    return divergence.mean() * temperature**2


def _require_equal(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise TrainingError(
            f"Teacher and student give logits of different shapes, {tuple(teacher.shape)} and {tuple(student.shape)}; "
            "distillation needs equal ones. Set distill to 0 or give another teacher."
        )
