"""The training loop. Killed at any moment and started again, it ends with the bits it would have ended with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.data.batches import sample_count
from compressor.errors import UsageError
from compressor.nn.inference import Inference
from compressor.process.progress import Progress
from compressor.process.ranks import current
from compressor.train.batch_statistics import whole_batch
from compressor.train.compiled import runnable
from compressor.train.config import TrainConfig
from compressor.train.frozen import training
from compressor.train.hooks import Hooks
from compressor.train.layout import accepts_channels_last, channels_last, copied_to_device
from compressor.train.lost import what_is_lost
from compressor.train.meter import LossMeter
from compressor.train.modes import deterministic, mode, model_device
from compressor.train.objectives.evaluate import evaluate
from compressor.train.objectives.losses import LossFn
from compressor.train.objectives.objective import objective, require_lesson
from compressor.train.objectives.outputs import primary_output
from compressor.train.optim import (
    build_optimizer,
    load_named_state,
    named_state,
    optimizer_parameters,
    step_all,
)
from compressor.train.parts import Batch, Part, epoch_steps, parts_of
from compressor.train.reduction import Reduction, digest
from compressor.train.resume.checkpoint import Checkpoint
from compressor.train.resume.state import Counters, TrainingState
from compressor.train.rng import derive_seed, isolated_rng, seed_everything, set_rng_state
from compressor.train.schedule import cosine_with_warmup, steps_with_warmup
from compressor.train.splits import TrainData, call_model, steps_per_epoch, task_of


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves beside the trained model."""

    history: list[dict[str, Any]]
    """One entry per epoch (and every ``log_every`` steps): epoch and step (done so far), mean loss since the entry
    before, lr, ``val_accuracy`` and ``val_loss`` where evaluated, and what the hooks log."""
    steps: int
    seconds: float
    """Over all processes that worked on the run, without what a kill threw away."""


@dataclass(frozen=True)
class Span:
    """A part of a run that several trainers share, each with a model of its own: the schedule is that of the whole."""

    first: int = 0
    """The step it begins with, counted from 0."""
    last: int | None = None
    """The step before which it ends; None: with the run."""
    optimizer_state: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the optimizer remembers of each parameter when it begins, see ``Trainer.optimizer_state``."""


class Trainer:
    """Trains ``model`` in place on ``data.train``.

    With the same seed, data and number of threads the weights come out the same, bit for bit. With a ``checkpoint``
    that holds too for a run that is killed and started again with the same arguments.

    Processes that work together (``process.ranks``) each take a part of every batch, and all end with the weights that
    one process would end with, up to rounding: losses are means over samples, batch statistics are those of the whole
    batch, and gradients are summed before every step. The first process keeps the checkpoint.

    Args:
        model: trained where it is, without what is frozen (``frozen``); its modules are in the modes they had when the
            run is over.
        data: ``data.train`` yields the batches; ``data.val`` is used if ``config.evaluate_every`` is set.
        teacher: the network to distil from, on the same device; evaluated in evaluation mode, never changed.
        loss_fn: ``loss_fn(outputs, targets)`` of the model's raw outputs; default that of ``data.task``,
            cross entropy where it has none.
        hooks: what a search method adds.
        checkpoint: file to save to and go on from; None saves nothing.
        progress: told of every step; None is silent.
        param_groups: groups for the optimizer instead of all trainable parameters of the model.
        span: train for these steps only; None: for all.
        anew: told why, if the checkpoint is one of this run as an earlier version of the program had it, with other
            settings, so that the run begins anew; None: that is an error like any other checkpoint.

    Raises:
        UsageError: distillation without a teacher, or a checkpoint that belongs to something else.
        DataError: the split is empty, or its targets do not fit the model.
        TrainingError: nothing to train, or (in ``run``) a loss or weight that is NaN.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainData,
        config: TrainConfig,
        *,
        teacher: nn.Module | None = None,
        loss_fn: LossFn | None = None,
        hooks: Hooks | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
        param_groups: Sequence[dict[str, Any]] | None = None,
        span: Span | None = None,
        anew: Callable[[str], None] | None = None,
    ) -> None:
        if config.distill and teacher is None:
            raise UsageError(f"distill is {config.distill:g} but there is no teacher; pass one or set distill to 0.")
        self.model, self.data, self.config = model, data, config
        self.device = model_device(model)
        self._teacher = teacher if config.distill else None
        self._teaching = None if self._teacher is None else Inference(self._teacher)
        if self._teacher is not None and (where := model_device(self._teacher)) != self.device:
            raise UsageError(f"The teacher is on {where}, the model on {self.device}; move one to the other.")
        if self._teacher is not None and {id(m) for m in self._teacher.modules()} & {id(m) for m in model.modules()}:
            raise UsageError("The teacher shares modules with the model it is to teach; pass a copy.deepcopy of it.")
        self._objective = objective(
            task_of(data), label_smoothing=config.label_smoothing, temperature=config.temperature
        )
        self._lesson = require_lesson(self._objective) if config.distill else None
        self._loss_fn = loss_fn or self._objective.loss
        self._user_loss = loss_fn
        self._checks_targets = loss_fn is None
        self._mean_over = self._objective.mean_over if loss_fn is None else sample_count
        self._hooks = hooks or Hooks()
        self._ranks = current()
        self._progress = progress
        self._epoch_steps = steps_per_epoch(data.train, config.batch_size, config.accumulate) if config.epochs else 0
        every_step = config.epochs * self._epoch_steps
        self.total_steps = every_step if config.max_steps is None else min(every_step, config.max_steps)
        part = span or Span()
        self._last = self.total_steps if part.last is None else min(part.last, self.total_steps)
        self._warmup_steps = round(config.warmup_epochs * self._epoch_steps)
        self._amp_dtype = _amp_dtype(config, self.device)
        on_gpu = self.device.type == "cuda"
        self._channels_last = config.channels_last
        scaler = torch.amp.GradScaler(self.device.type, enabled=on_gpu and self._amp_dtype is torch.float16)
        main = build_optimizer(model, config, self._hooks, param_groups) if self.total_steps else None
        optimizers = {"main": main} if main is not None else {}
        optimizers |= {f"hooks.{name}": optimizer for name, optimizer in self._hooks.optimizers().items()}
        self._main = main
        if main is not None:
            self._hooks.follows(main)
            load_named_state(model, main, part.optimizer_state)
        owned = {id(p) for p in model.parameters()}
        self._clipped = [p for p in optimizer_parameters(main) if id(p) in owned] if main is not None else []
        self._state = TrainingState(model, optimizers, scaler, self._hooks, Counters(step=part.first))
        self._reduced = Reduction(self._ranks, model, optimizers.values())
        self._runs = runnable(model, self._ranks, compiles=config.compile, plain=self._hooks.plain)
        self._checkpoint = Checkpoint(checkpoint if self._ranks.is_first else None, config.checkpoint_seconds)
        self._fingerprint = {
            **config.fingerprint(),
            "samples": len(data.train) if config.epochs else 0,
            "teacher": self._teacher is not None,
            "amp_dtype": str(self._amp_dtype),
            **({} if span is None else {"span": [span.first, span.last]}),
        }
        self._anew = anew

    def run(self) -> TrainResult:
        """Train to the end, from the checkpoint if there is one. A finished run returns at once."""
        with ExitStack() as stack:
            self._give_way = stack.enter_context(isolated_rng())
            stack.enter_context(deterministic(self.device))
            stack.enter_context(training(self.model))
            if self._teacher is not None:
                stack.enter_context(mode(self._teacher, training=False))
            saved = self._ranks.first(self._saved)
            rng = None if saved is None else self._state.load_state_dict(saved)
            counters = self._state.counters
            if counters.step < self._last:
                if self._progress is not None:
                    stack.callback(self._progress.close)
                    self._progress.start(self.total_steps, counters.step)
                self._train(rng)
                self._require_same()
            return TrainResult(list(counters.history), counters.step, counters.seconds)

    def _saved(self) -> dict[str, Any] | None:
        """What the checkpoint says, if there is one."""
        if self._anew is not None:
            settings = {*self.config.fingerprint(), "span", *(each.name for each in fields(self.config))}
            if differs := self._checkpoint.forget_former(self._fingerprint, settings):
                self._anew(
                    f"An earlier version of the program began this training otherwise ({differs}): it begins anew."
                )
        return self._checkpoint.load(self._fingerprint)

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """What the optimizer remembers of each of the model's parameters, by name, for a trainer that goes on."""
        return {} if self._main is None else named_state(self.model, self._main)

    def _train(self, rng: dict[str, Any] | None) -> None:
        counters = self._state.counters
        batch: list[Batch] = []
        meter = LossMeter(counters, self.device, self._checkpoint.note, lambda: what_is_lost(self.model, batch))
        clock = _Clock(counters.seconds)
        self._zero_grad()  # gradients that the caller left behind are no part of the run
        continues = rng is None and counters.step > 0  # what another trainer began
        for epoch in range(counters.step // self._epoch_steps, self.config.epochs):
            seed_everything(derive_seed(self.config.seed, "epoch", epoch))
            steps = epoch_steps(
                self.data.train,
                self.config.batch_size,
                self.config.accumulate,
                seed=self.config.seed,
                epoch=epoch,
                augment=self.config.augment,
            )
            if skip := counters.step - epoch * self._epoch_steps:
                for _ in range(skip):
                    next(steps)
                # Only now: skipping draws from the generators what the steps before the kill drew already.
                if rng is not None:
                    set_rng_state(rng)
            if continues:
                self._save(meter, clock)  # so that a loss that is lost at once has a last good state, too
                continues = False
            for batches in steps:
                self._give_way()
                batch[:] = batches
                meter.add(self._step(counters.step, batches))
                counters.step += 1
                ended = counters.step % self._epoch_steps == 0
                over = counters.step == self._last
                if self._progress is not None:
                    values = self._hooks.step_values()
                    self._progress.advance(counters.step, loss=meter.last, lr=self._lr(counters.step - 1), **values)
                every = self.config.log_every
                if ended or over or (every and counters.step % every == 0):
                    self._log(epoch, meter, ended=ended)
                if over or self._checkpoint.due(epoch_end=ended):
                    self._save(meter, clock)
                if over:
                    return

    def _step(self, step: int, batches: Sequence[Batch]) -> Tensor:
        """One step; returns the loss, still on its device."""
        config, hooks, state = self.config, self._hooks, self._state
        if self._main is not None:
            factor = self._factor(step)
            for group in self._main.param_groups:
                group["lr"] = group["initial_lr"] * factor
        hooks.before_step(step, self.total_steps)
        loss: Tensor | None = None
        with self._own_draws(step), whole_batch(self._ranks):
            for part in parts_of(batches, self._ranks, self._mean_over):
                found = self._backward(part, penalised=loss is None)
                loss = found if loss is None else loss + found
        assert loss is not None, "a step has a part at least"
        loss = self._reduced(loss)
        unscaled = []
        if config.grad_clip is not None and self._main is not None:
            state.scaler.unscale_(self._main)
            unscaled.append(self._main)
            torch.nn.utils.clip_grad_norm_(self._clipped, config.grad_clip)
        step_all(state.scaler, state.optimizers.values(), unscaled)
        self._zero_grad()
        hooks.after_step(step, self.total_steps)
        return loss

    def _backward(self, part: Part, *, penalised: bool) -> Tensor:
        """Gradients of a part's share of the loss, with the penalty in one part; returns it, still on its device."""
        hooks, scaler = self._hooks, self._state.scaler
        inputs, targets = copied_to_device(part.inputs, self.device), copied_to_device(part.targets, self.device)
        if self._channels_last is None:
            self._channels_last = self._accepts_channels_last(inputs)
        if self._channels_last:
            inputs = channels_last(inputs)
        # Each gets its own: a forward may change it in place.
        further = [(loss_of, copied_to_device(inputs, self.device)) for loss_of in hooks.further()]
        with torch.autocast(self.device.type, self._amp_dtype, enabled=self._amp_dtype is not None):
            taught = self._taught(inputs)
            outputs = hooks.forward(self._runs, inputs)
            if self._checks_targets:
                self._objective.check(outputs, targets)
                self._checks_targets = False
            try:
                loss = self._loss_fn(outputs, targets) if part.share else primary_output(outputs).float().sum()
            except (IndexError, ValueError):  # what kernels of classes raise on the CPU, without a word on the data
                if self._user_loss is None:
                    self._objective.check(outputs, targets)
                raise
            if taught is not None and self._lesson is not None:
                from_teacher = self._lesson(primary_output(outputs), taught)
                loss = torch.lerp(loss.float(), from_teacher, self.config.distill)
        loss = _shared(loss, part.share)
        penalty = hooks.penalty() if penalised else None
        if penalty is not None:
            loss = loss + _shared(penalty, 1 / self._ranks.size)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        for loss_of, own_inputs in further:
            with torch.autocast(self.device.type, self._amp_dtype, enabled=self._amp_dtype is not None):
                more = loss_of(own_inputs, primary_output(outputs).detach())
            scaler.scale(_shared(more, part.share)).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _taught(self, inputs: Any) -> Tensor | None:
        """What the teacher says of a copy of the inputs, if there is one."""
        teacher = self._teacher
        if teacher is None or self._teaching is None:
            return None
        return self._teaching(lambda: primary_output(call_model(teacher, copied_to_device(inputs, self.device))))

    def _own_draws(self, step: int) -> AbstractContextManager[Any]:
        """Of several processes each draws for its own samples, whatever others draw."""
        if self._ranks.size == 1:
            return nullcontext()
        return isolated_rng(seed=derive_seed(self.config.seed, "rank", self._ranks.rank, "step", step))

    def _require_same(self) -> None:
        if self._ranks.size > 1:
            trained = [*self.model.parameters(), *self.model.buffers(), *self._state.extra_parameters()]
            self._ranks.require_same("weights", digest(trained))

    def _accepts_channels_last(self, inputs: Any) -> bool:
        taught = self._teacher is None or accepts_channels_last(self._teacher, inputs, call_model)
        return taught and accepts_channels_last(self.model, inputs, self._hooks.forward)

    def _zero_grad(self) -> None:
        self.model.zero_grad(set_to_none=True)  # of parameters too that no optimizer has
        for optimizer in self._state.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def _factor(self, step: int) -> float:
        config, warmup = self.config, self._warmup_steps
        step, total = step + config.steps_before, config.steps_before + self.total_steps + config.steps_after
        if config.schedule == "steps":
            return steps_with_warmup(step, total, config.milestones, config.decay, warmup)
        return cosine_with_warmup(step, total, warmup, config.final_lr_fraction)

    def _lr(self, step: int) -> float:
        return self.config.lr * self._factor(step)

    def _log(self, epoch: int, meter: LossMeter, *, ended: bool) -> None:
        counters, every = self._state.counters, self.config.evaluate_every
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": counters.step,
            "loss": meter.take_mean(),
            "lr": self._lr(counters.step - 1),
        }
        if ended and every and (epoch + 1) % every == 0:
            found = evaluate(self.model, self.data.val, loss_fn=self._user_loss, task=task_of(self.data))
            entry |= {"val_accuracy": found.accuracy, "val_loss": found.loss}
        counters.history.append({**entry, **self._hooks.log()})

    def _save(self, meter: LossMeter, clock: _Clock) -> None:
        meter.drain()
        self._state.check_finite(self._checkpoint.note)
        self._state.counters.seconds = clock.seconds()
        self._checkpoint.save(self._state.state_dict(), self._fingerprint)


def _shared(loss: Tensor, share: float) -> Tensor:
    return loss if share == 1 else loss * share


class _Clock:
    """Seconds of work, those of earlier processes included."""

    def __init__(self, before_s: float) -> None:
        self._before_s = before_s
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return self._before_s + time.perf_counter() - self._started


def _amp_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """bfloat16 where the hardware computes in it, which needs no loss scaling; float16 on older GPUs."""
    wanted = device.type == "cuda" if config.amp is None else config.amp
    if not wanted:
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16
