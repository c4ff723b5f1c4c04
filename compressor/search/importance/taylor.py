"""Importance by what the loss says (Molchanov et al., 2019, eq. 7-8, summed over the unit).

``E[(sum w * dL/dw)^2]`` over batches: the squared first-order change of the loss when the weights in use that carry a
unit go to zero. A block matters as much as the units inside it together, and at least as much as the squared
first-order change when its gate closes.
"""

from __future__ import annotations

import numpy as np
import torch

from compressor.data.base import usual_batch
from compressor.errors import UsageError
from compressor.nn.modules import evaluating
from compressor.nn.quantization import unobserved
from compressor.process.generators import isolated_rng
from compressor.search.importance.base import Ranking, Scores, add_per_unit
from compressor.search.importance.effective import Reads
from compressor.search.importance.norms import l2
from compressor.train.layout import copied_to_device
from compressor.train.modes import computing_losses
from compressor.train.objectives.objective import objective
from compressor.train.splits import call_model, task_of

_BATCH = 64
_TINY = 1e-12


def taylor(ranking: Ranking) -> Scores:
    """See the module docstring. The model is not changed. Raises ``UsageError`` without data."""
    context, graph, model = ranking.context, ranking.graph, ranking.model
    if context.data is None:
        raise UsageError("taylor looks at data, and there is none; pass data, or rank by magnitude.")
    device = next(model.parameters()).device
    units, blocks = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    gated = {name: block.index for block in graph.blocks for name in block.gated}
    reads = Reads(model, graph)
    goal = objective(task_of(context.data))
    loss_of = context.loss_fn or goal.loss
    modes = computing_losses if goal.model_loss else evaluating  # what is drawn there follows the seed
    size = usual_batch(context.data.train, _BATCH)
    with isolated_rng(seed=context.seed), modes(model), unobserved(model):
        for i, (inputs, targets) in enumerate(context.data.train.batches(size, shuffle_seed=context.seed)):
            if i == ranking.batches:
                break
            with reads.watching():
                outputs = call_model(model, copied_to_device(inputs, device))
                loss = loss_of(outputs, copied_to_device(targets, device))
            weights = [weight for weight in reads.weights() if weight.tensor.requires_grad]
            gradients = torch.autograd.grad(loss, [weight.tensor for weight in weights], allow_unused=True)
            change, closing = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is None:
                    continue
                product = (weight.tensor.detach() * gradient.conj()).real.double()
                for closed in {gated[name] for name in weight.stored if name in gated}:
                    closing[closed] += float(product.sum())
                # Count a unit where it is written; where it is read, the same change would be counted again.
                for d, axis in enumerate(weight.axes[:1]):
                    if axis is not None:
                        other = [j for j in range(product.dim()) if j != d]
                        add_per_unit(change, axis, (product.sum(other) if other else product).cpu().numpy())
            units += change**2
            blocks += closing**2
    for block in graph.blocks:
        within = sum(float(units[graph.groups[g].units].sum()) for g in block.groups)
        blocks[block.index] = max(blocks[block.index], within)
    units, blocks = units / max(ranking.batches, 1), blocks / max(ranking.batches, 1)
    # Without any gradient (a dead or frozen layer) weights decide; the term is far below any real saliency.
    return units + _TINY * max(float(units.max(initial=0)), _TINY) * l2(ranking)[0], blocks
