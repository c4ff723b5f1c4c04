"""Search while a Hugging Face ``Trainer`` trains; needs the extra ``hf``.

    class MyTrainer(CompressionMixin, Trainer): ...    # or CompressionTrainer, which is that

    trainer = CompressionTrainer(model, args, train_dataset=data, compression=Compression(batch, {"flops": "50%"}))
    trainer.train()                 # afterwards model is small, with its trained weights
    trainer.save_model("small")     # compressor.load("small", model=fresh) reads it

Masks move once per step of the optimizer, whatever is accumulated, and not with steps that a loss scaler leaves out.
They are in the trainer's checkpoints. Evaluation during the training sees the masked network. The loss that is logged
is the task's own; costs are logged beside it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import MissingDependencyError, UsageError
from compressor.integrations.driver import SessionDriver
from compressor.models.artifact import save_model
from compressor.pipeline.session_plan import SessionPlan
from compressor.storage.files import atomic_write_bytes
from exporters.example import Example

try:
    from transformers import Trainer, TrainerCallback
except (ImportError, ModuleNotFoundError) as error:
    raise MissingDependencyError(
        "CompressionTrainer needs transformers and accelerate; install them with pip install 'compressor[hf]'."
    ) from error

STATE = "compression.pt"
"""What is written into a checkpoint's folder, beside the trainer's own files."""
_CURE = "give the TrainingArguments max_steps="


class Compression(SessionDriver):
    """What a trainer is to do besides training.

    Args:
        example: a batch as the model's forward takes it, by name: ``{"input_ids": ..., "attention_mask": ...}``; labels
            are left out. One example is enough.
        budgets, arguments: as for ``compressor.prepare``.
        total_steps: steps in which masks are learned; the rest of the training is for the weights of what was decided
            on. Default: all steps of the training.
        replace: whether the trainer's model itself is small after ``train``.

    Attributes:
        model: the small network after ``train``; None before.
        architecture: what was decided; applies to a fresh original.

    Raises:
        UsageError: unusable arguments.
    """

    def __init__(
        self,
        example: Any,
        budgets: Mapping[str, str | float],
        *,
        total_steps: int | None = None,
        replace: bool = True,
        **arguments: Any,
    ) -> None:
        if isinstance(example, Mapping):
            example = Example((), {name: value for name, value in example.items() if name != "labels"})
        super().__init__(SessionPlan(example, budgets, **arguments), total_steps, in_place=replace)

    def write(self, folder: Path) -> None:
        """Store what ``read`` needs to go on."""
        stored = io.BytesIO()
        torch.save(self.state_dict(), stored)
        atomic_write_bytes(folder / STATE, stored.getvalue())

    def read(self, folder: Path, network: nn.Module | None = None) -> None:
        """Go on from a checkpoint, whose weights ``network`` is to get. Raises ``UsageError`` if there are no masks in
        it, or others, or if that network is small by now."""
        if not (folder / STATE).is_file():
            raise UsageError(
                f"The checkpoint {folder} has no {STATE}: it is of a training without compression, or was cut short "
                "while it was written. Resume from an earlier one."
            )
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        self.require_whole(network, state, "train it on without resume_from_checkpoint, or resume with a fresh model")
        self.load_state_dict(state)


class CompressionMixin:
    """Stands before a ``Trainer`` class among the bases of a trainer, and takes one argument more, ``compression``."""

    model: Any
    args: Any
    accelerator: Any

    def __init__(self, *args: Any, compression: Compression, **kwargs: Any) -> None:
        if not isinstance(compression, Compression):
            raise UsageError(f"compression must be a Compression, not a {type(compression).__name__}.")
        super().__init__(*args, **kwargs)
        self.compression = compression
        self.add_callback(_Steps(self))  # type: ignore[attr-defined]

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As of the ``Trainer``; masks, too, go on from the checkpoint."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = _last_whole(Path(self.args.output_dir))
        if resume_from_checkpoint:
            self.compression.read(Path(resume_from_checkpoint), self.model)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]
        except BaseException:
            self.compression.close()
            raise

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As of the ``Trainer``, with the masks of a training that runs."""
        session = self.compression.active
        with nullcontext() if session is None else session.masked():
            return super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As of the ``Trainer``, with costs beside the loss: what is left of each, as a fraction of the original's."""
        session = self.compression.active
        if session is not None and session.steps_done and "loss" in logs:
            logs = {**logs, **{f"cost_{name}": value for name, value in session.costs().items()}}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As of the ``Trainer``; of a small network ``architecture.json``, too, so that it can be loaded."""
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        driver = self.compression
        if self.args.should_save and driver.architecture is not None and driver.model is self.model:
            folder, example = output_dir or self.args.output_dir, driver.plan.example_inputs
            save_model(folder, driver.model, driver.architecture, example_inputs=example)

    def masks_begin(self, total_steps: int) -> None:
        """The model is where it trains now."""
        if self.args.n_gpu > 1:
            raise UsageError(
                f"The Trainer runs copies of the model on {self.args.n_gpu} GPUs (DataParallel), and masks act in the "
                "model itself; start one process for each GPU with torchrun, or show it one GPU."
            )
        if getattr(self, "is_deepspeed_enabled", False):
            raise UsageError("DeepSpeed steps on weights of its own, which masks cannot follow; train without it.")
        self.compression.open(self.model, total_steps, _CURE)

    def masks_cost(self) -> None:
        """Gradients of the weights are whole now."""
        scaler = self.accelerator.scaler
        self.compression.add_cost(1.0 if scaler is None else scaler.get_scale())

    def masks_end(self, best: str | None) -> None:
        """Decide; if the best checkpoint was loaded, on its masks."""
        driver = self.compression
        if driver.active is None:
            return
        if best is not None and self.args.load_best_model_at_end:
            driver.read(Path(best), self.model)
        driver.finish()
        if driver.model is self.model:  # wrappers and optimizers hold weights that are gone
            self.model_wrapped, self.optimizer, self.lr_scheduler = self.model, None, None


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Tells a trainer's compression where the training is."""

    def __init__(self, trainer: Any) -> None:
        self._trainer, self._compression = trainer, trainer.compression

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.masks_begin(state.max_steps)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.masks_cost()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._compression.step()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.should_save and self._compression.active is not None and folder.is_dir():
            self._compression.write(folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.masks_end(state.best_model_checkpoint)


def _last_whole(folder: Path) -> str:
    """The newest checkpoint that was written to its end. Raises ``UsageError`` if there is none."""
    written = [path.parent for path in folder.glob(f"checkpoint-*/{STATE}")]
    steps = {int(path.name.rpartition("-")[2]): path for path in written if path.name.rpartition("-")[2].isdigit()}
    if not steps:
        raise UsageError(f"There is no checkpoint with {STATE} in {folder}; begin without resume_from_checkpoint.")
    return str(steps[max(steps)])


class CompressionTrainer(CompressionMixin, Trainer):  # type: ignore[misc]
    """The ``Trainer`` of transformers, under budgets."""
