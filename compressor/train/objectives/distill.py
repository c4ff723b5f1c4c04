"""Knowledge distillation (Hinton, Vinyals and Dean, 2015): learn from the logits of the original network.

With temperature T, loss = T^2 KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch and, where
every pixel has logits of its own, over the pixels. The factor T^2 keeps the gradients' size independent of T.
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
    if student.shape != teacher.shape:
        raise TrainingError(
            f"Teacher and student give logits of different shapes, {tuple(teacher.shape)} and {tuple(student.shape)}; "
            "distillation needs equal ones. Set distill to 0 or give another teacher."
        )
    # float32 under mixed precision: differences of small log-probabilities drown in half precision.
    student_log = functional.log_softmax(student.float() / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher.float() / temperature, dim=1)
    divergence = torch.sum(teacher_log.exp() * (teacher_log - student_log), dim=1)
    return divergence.mean() * temperature**2
