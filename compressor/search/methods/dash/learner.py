"""DASH: kernel sizes and dilations, learned together with the weights (Shen, Khodak and Talwalkar, 2022).

Every convolution that may be another is the weighted sum of all that it may be (section 3.1). The weights are drawn by
Gumbel-softmax from logits that start near zero, and weights and logits go down the same gradient (section 3.3); then
each site takes its likeliest kernel. The rates, their fall, the clipping and the share of the data are the paper's
(appendix A.5.2), scaled to the epochs given.

Beyond the paper:

- Budgets. Expected costs, ``sum(p_i cost_i)``, are held to budgets by multipliers (``Multipliers``), latency by the
  operators of all alternatives in the table. What no network within the budgets can have is no alternative from the
  start. Kernels are drawn by the sum of two logits: the architecture weights, which descend the task's loss, and the
  budgets' pull, which descends the penalty. Only the first count in the decision, which has the budgets exactly: the
  likeliest kernels are moved under them where the least log-probability is lost for what is saved
  (``best_alternatives``). With one logit for both, a pull that is just enough for the expectation makes all sites
  cheap at once when they are decided, and most of a budget is left.
- What a convolution is takes part, and keeps its weights; the others start from its taps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.arrays import FloatArray
from compressor.costs import Sizes
from compressor.errors import TrainingError
from compressor.masks.categorical import Categorical
from compressor.search.constraints.multipliers import Multipliers
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dash.config import DashConfig
from compressor.search.methods.dash.decision import affordable, leads, likeliest
from compressor.search.methods.dash.evidence import Evidence
from compressor.search.methods.dash.supernet import Supernet
from compressor.search.result import SearchResult
from compressor.search.training.learner import Learner
from compressor.train.rng import derive_seed
from compressor.train.splits import call_model

_SPREAD = 1e-3  # of the logits at the start, as the paper has it


class DashLearner(Learner):
    """The logits and the mixtures, as the training loop sees them. ``model`` is changed in place until ``fold_``."""

    def __init__(self, model: nn.Module, projector: Projector, config: DashConfig, *, seed: int) -> None:
        self.config, self.projector, self.graph = config, projector, projector.graph
        self.device = next(model.parameters()).device
        self._rate = config.architecture_lr
        self._allowed = affordable(projector)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "dash"))
            self.categorical = Categorical(self.graph, allowed=np.concatenate(self._allowed), device=self.device)
            spread = _SPREAD * torch.randn(self.categorical.logits.shape)
            self.supernet = Supernet(model, self.graph.choices, self._allowed, config.form, warm=config.warm)
        with torch.no_grad():
            self.categorical.logits.add_(spread.to(self.device))
        self.pull = nn.Parameter(torch.zeros_like(self.categorical.logits))
        self._before = {name: t.detach().clone() for name, t in model.state_dict().items()} if config.fresh else None
        self.model = model
        units = torch.from_numpy(projector.start[:-1].astype(np.float64)).to(self.device)
        self._units = units
        with torch.no_grad():
            start = [float(c.term(self.expected())) for c in projector.constraints]
        self.multipliers = Multipliers(projector.constraints, start)
        self.evidence = Evidence(self.categorical.logits, self.categorical.current)
        self._uniform: Tensor | None = None  # what the kernels of this step are drawn from

    def expected(self) -> Sizes:
        """Sizes under the probabilities that alternatives are drawn by; their gradient is the pull's."""
        drawn = self.categorical.probabilities(self.categorical.logits.detach() + self.pull)
        return Sizes(self.graph, self.categorical.into(self._units, drawn))

    @property
    def as_it_is(self) -> bool:
        """Whether the budgets leave nothing but the kernels that are there."""
        return all(
            int(open_.sum()) == 1 and bool(open_[choice.current])
            for choice, open_ in zip(self.graph.choices, self._allowed, strict=True)
        )

    # ---- Hooks

    def param_groups(self) -> Sequence[dict[str, Any]]:
        return ({"params": [self.categorical.logits, self.pull], "lr": self._rate, "weight_decay": 5e-4},)

    @property
    def stateful(self) -> Mapping[str, Any]:
        return {"multipliers": self.multipliers, "evidence": self.evidence}

    def follows(self, optimizer: Optimizer) -> None:
        self.evidence.follow(optimizer)

    def before_step(self, step: int, total_steps: int) -> None:
        self._uniform = self.categorical.uniform()

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        logits, temperature = self.categorical.logits + self.pull.detach(), self.config.temperature
        drawn = self.categorical.sample(temperature, logits=logits, uniform=self._uniform)
        self.supernet.give(self.categorical.split(drawn))
        return call_model(model, inputs)

    def penalty(self) -> Tensor | None:
        return self.multipliers.penalty(self.expected()).to(self.categorical.logits.dtype)

    def after_step(self, step: int, total_steps: int) -> None:
        self.evidence.note()
        self.multipliers.progress = (step + 1) / max(1.0, self.config.reach * total_steps)
        self.multipliers.step()

    def step_values(self) -> Mapping[str, float]:
        return self.multipliers.of_limits() if self.learns else {}

    def log(self) -> dict[str, Any]:
        costs = self.multipliers.shares()
        parts = self.categorical.split(self.categorical.probabilities().detach())
        weights = {
            choice.name: [round(p, 5) for p in part.tolist()]
            for choice, part in zip(self.categorical.choices, parts, strict=True)
        }
        return {**costs, "probabilities": weights}

    # ---- Learner

    def require_finite(self) -> None:
        if not all(bool(torch.isfinite(logits).all()) for logits in (self.categorical.logits, self.pull)):
            raise TrainingError(
                "What is kept cannot be decided, as architecture weights have become NaN or infinite. Search again "
                "with lower rates (--dash.lr, --dash.architecture-lr), and look for NaN in the data."
            )

    def decide(self, history: list[dict[str, Any]] | None = None) -> SearchResult:
        """Of every site the likeliest kernel, as far as the budgets allow."""
        self.require_finite()
        units, scores = likeliest(self.projector, *self._judged(), self.config.doubt)
        return SearchResult(units, torch.from_numpy(scores), history or [], weights=self._weights())

    def _judged(self) -> tuple[list[FloatArray], list[FloatArray]]:
        """Of each site how likely its kernels are, and how sure that is."""
        found = self.categorical.probabilities().detach(), self.evidence.standard_errors()
        likely, sure = ([p.double().cpu().numpy() for p in self.categorical.split(each)] for each in found)
        return likely, sure

    @property
    def undecided(self) -> int:
        """Sites with several kernels of which none is ahead of the one that is there beyond chance."""
        several = [(c, p, sure) for c, p, sure in zip(self.graph.choices, *self._judged(), strict=True) if p.max() < 1]
        return sum(float(leads(p, sure, self.config.doubt, c.current).max()) <= 0 for c, p, sure in several)

    def _weights(self) -> dict[str, dict[str, dict[str, Tensor]]]:
        if self._before is not None:
            self.model.load_state_dict(self._before)
        return self.supernet.weights()

    def fold_(self, decision: SearchResult) -> None:
        self.supernet.restore_()
