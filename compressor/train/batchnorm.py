"""Running statistics of batch normalisation, taken anew after the network around it has changed.

A cumulative average over batches (Wu and Johnson, 2021, "Rethinking Batch in BatchNorm") has no memory of the old
network, unlike the exponential average of training.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.data.base import Split, usual_batch
from compressor.errors import DataError
from compressor.nn.inference import Inference
from compressor.process.ranks import current
from compressor.train.batch_statistics import whole_batch
from compressor.train.frozen import keeps_statistics
from compressor.train.layout import copied_to_device
from compressor.train.modes import deterministic, mode, model_device
from compressor.train.parts import part_of
from compressor.train.rng import isolated_rng
from compressor.train.splits import Forward, call_model


def recalibrate_batchnorm(
    model: nn.Module,
    split: Split,
    *,
    batches: int = 50,
    batch_size: int | None = None,
    augment: bool = False,
    seed: int = 0,
    device: torch.device | None = None,
    forward: Forward = call_model,
) -> int:
    """Reset the running statistics of every BatchNorm and average them over ``batches`` batches of ``split``, of
    128 samples unless the split asks for fewer.

    Those that are frozen (``frozen.keeps_statistics``) stay as they are.

    Processes that work together each take a part of every batch, of which statistics are those of the whole.

    The rest of the model runs as in inference (no dropout) and does not change. A layer that inference does not
    reach (an auxiliary head, say) keeps the statistics it had. If a forward pass fails, all of them do. ``forward``
    runs the model, ``forward(model, inputs)``, for instance with masks.

    Returns:
        The number of layers recalibrated; 0 if the model has none with running statistics that may move.

    Raises:
        DataError: the split yields no batch.
    """
    size = batch_size or usual_batch(split, 128)
    frozen = keeps_statistics(model)
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.running_mean is not None
        if layer not in frozen
    ]
    if not layers:
        return 0
    where = device or model_device(model)
    momenta = [layer.momentum for layer in layers]
    saved = [_statistics(layer) for layer in layers]
    finished = False
    # Without small remainders, whose statistics would count as much as those of a full batch.
    source = split.batches(size, shuffle_seed=seed, augment=augment, drop_last=len(split) >= size)
    try:
        ranks = current()
        inference = Inference(model)
        with isolated_rng(), deterministic(where), mode(model, training=False), torch.no_grad(), whole_batch(ranks):
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # cumulative average
                layer.train()
            seen = 0
            for batch in islice(source, batches):
                inputs, _ = part_of(batch, ranks)
                inference(partial(_run, forward, model, inputs, where))
                seen += 1
        if not seen:
            raise DataError("The split for recalibrating BatchNorm yielded no batch; give data with samples.")
        finished = True
    finally:
        done = 0
        for layer, momentum, statistics in zip(layers, momenta, saved, strict=True):
            layer.momentum = momentum
            if finished and layer.num_batches_tracked is not None and int(layer.num_batches_tracked):
                done += 1
            else:
                _restore(layer, statistics)
    return done


def _run(forward: Forward, model: nn.Module, inputs: Any, where: torch.device) -> None:
    forward(model, copied_to_device(inputs, where))


def _statistics(layer: _BatchNorm) -> list[Tensor]:
    found = (layer.running_mean, layer.running_var, layer.num_batches_tracked)
    return [tensor.clone() for tensor in found if tensor is not None]


def _restore(layer: _BatchNorm, statistics: list[Tensor]) -> None:
    found = (layer.running_mean, layer.running_var, layer.num_batches_tracked)
    for tensor, value in zip((t for t in found if t is not None), statistics, strict=True):
        tensor.copy_(value)
