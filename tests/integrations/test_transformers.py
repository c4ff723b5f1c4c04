"""Masks in a training by the Trainer of transformers: what any loop of one's own would do with them, to the bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import compressor
from compressor.errors import UnreachableBudgetError, UsageError
from tests.integrations.trained import Endless, assert_same, kill_after, run

transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
pytest.importorskip("accelerate", reason="the extra hf is not installed")

from compressor.integrations.transformers import STATE, Compression, CompressionTrainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
BUDGET = {"flops": "60%"}
IDS = torch.randint(0, 50, (40, 10), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
EXAMPLE = {"input_ids": IDS[:2], "attention_mask": MASK[:2], "labels": torch.zeros(2, dtype=torch.int64)}


class Sentences(Dataset[Any]):
    """Tokens (10,), and one of two classes."""

    def __len__(self) -> int:
        return len(IDS)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"input_ids": IDS[i], "attention_mask": MASK[i], "labels": int(IDS[i, 0]) % 2}


def bert() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model: nn.Module = transformers.BertForSequenceClassification(config)
    return model


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model


class Watch(transformers.TrainerCallback):
    """Ends a training in the middle: with an error, or as the kernel does."""

    def __init__(self, stop: int = -1) -> None:
        self.stop = stop

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        kill_after(state.global_step)
        if state.global_step == self.stop:
            raise RuntimeError("stopped")


def trainer(
    folder: Path, model: Any = None, compression: Any = None, *, stop: int = -1, data: Any = None, **settings: Any
) -> Any:
    chosen: dict[str, Any] = {
        "num_train_epochs": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "save_steps": 3,
        "save_strategy": "steps", "logging_steps": 2, "report_to": [], "use_cpu": True, "disable_tqdm": True,
        "optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant", "seed": 3, "dataloader_num_workers": 0,
    }  # fmt: skip
    return CompressionTrainer(
        bert() if model is None else model,
        transformers.TrainingArguments(str(folder), **{**chosen, **settings}),
        train_dataset=Sentences() if data is None else data,
        eval_dataset=Sentences(),
        callbacks=[Watch(stop)],
        compression=compression or Compression(EXAMPLE, BUDGET),
    )


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_it_is_the_loop_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = bert().train()
    torch.manual_seed(3)
    session = compressor.prepare(
        model, (), BUDGET, example_kwargs={"input_ids": IDS[:2], "attention_mask": MASK[:2]}, total_steps=10
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    labels = IDS[:, 0] % 2
    for step in range(10):
        for half in range(2):
            i = (step * 8 + half * 4) % 40
            logits = model(input_ids=IDS[i : i + 4], attention_mask=MASK[i : i + 4]).logits
            F.cross_entropy(logits, labels[i : i + 4]).backward()  # the model takes the loss's scale upon itself
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        cost = session.cost_loss()
        if cost.requires_grad:
            cost.backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()
    expected = session.finish()
    mine = trainer(tmp_path, train_sampling_strategy="sequential")
    mine.train()
    assert mine.compression.model is mine.model
    assert count(mine.model) < 0.9 * count(bert())
    assert mine.model.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(mine.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_stopped_and_resumed_it_ends_as_it_would_have(tmp_path: Path, search: str) -> None:
    def compression() -> Any:
        return Compression(EXAMPLE, BUDGET, search=search)

    alone = trainer(tmp_path / "alone", compression=compression())
    alone.train()
    stopped = trainer(tmp_path / "again", compression=compression(), stop=8)
    with pytest.raises(RuntimeError, match="stopped"):
        stopped.train()
    assert stopped.compression.active is None
    assert count(stopped.model) == count(bert())
    again = trainer(tmp_path / "again", compression=compression())
    again.train(resume_from_checkpoint=True)
    assert again.compression.session.steps_done == 10
    assert again.compression.architecture == alone.compression.architecture
    assert_same(again.model, alone.model)


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_it_would_have(tmp_path: Path) -> None:
    for name, kill in (("alone", None), ("again", 7), ("again", None)):
        run(__name__, tmp_path / name, kill_after=kill)
    alone, again = (torch.load(tmp_path / name / "small.pt", weights_only=True) for name in ("alone", "again"))
    assert alone.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in alone.items())


def test_a_network_that_is_small_resumes_no_training_of_the_whole_one(tmp_path: Path) -> None:
    mine = trainer(tmp_path, num_train_epochs=1)
    mine.train()
    small = count(mine.model)
    with pytest.raises(UsageError, match=r"holds the whole network.* train it on without resume_from_checkpoint"):
        mine.train(resume_from_checkpoint=True)
    assert count(mine.model) == small
    again = trainer(tmp_path, num_train_epochs=1)
    again.train(resume_from_checkpoint=True)
    assert_same(again.model, mine.model)


def test_a_small_network_is_saved_and_loaded(tmp_path: Path) -> None:
    mine = trainer(tmp_path)
    mine.train()
    mine.save_model(str(tmp_path / "small"))
    loaded = compressor.load(tmp_path / "small", model=bert())
    assert_same(loaded, mine.model)
    found = mine.evaluate()["eval_loss"]
    again = trainer(tmp_path / "again", loaded, num_train_epochs=1)
    assert again.evaluate()["eval_loss"] == pytest.approx(found)


def test_a_network_that_is_finished_is_trained_as_it_is(tmp_path: Path) -> None:
    mine = trainer(tmp_path, compression=Compression(EXAMPLE, BUDGET, total_steps=4), save_strategy="no")
    mine.train()
    assert mine.compression.session.steps_done == 10
    small, before = count(mine.model), [p.detach().clone() for p in mine.model.parameters()]
    mine.train()
    assert count(mine.model) == small
    assert any(not torch.equal(a, b) for a, b in zip(before, mine.model.parameters(), strict=True))


def test_the_best_checkpoint_is_decided_on(tmp_path: Path) -> None:
    best = trainer(
        tmp_path,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # the worst, which is not the last
        eval_strategy="steps",
        eval_steps=3,
    )
    best.train()
    chosen = Path(best.state.best_model_checkpoint)
    assert chosen.name != "checkpoint-10"
    decided = trainer(tmp_path / "decided")
    decided._load_from_checkpoint(str(chosen))
    decided.compression.read(chosen)
    decided.compression.open(decided.model, 10, "")
    assert_same(decided.compression.finish(), best.model)


def test_evaluation_sees_the_masked_network_and_costs_are_logged(tmp_path: Path) -> None:
    mine = trainer(
        tmp_path, compression=Compression(EXAMPLE, BUDGET, replace=False), eval_strategy="steps", eval_steps=10,
        learning_rate=0.5,
    )  # fmt: skip
    mine.train()
    during = mine.state.log_history[-2]["eval_loss"]
    whole, small = mine.model, mine.compression.model
    assert count(small) < count(whole)
    assert mine.evaluate()["eval_loss"] != pytest.approx(during, rel=1e-4)
    other = trainer(tmp_path / "small", small)
    assert other.evaluate()["eval_loss"] == pytest.approx(during, rel=1e-5)
    costs = [entry["cost_flops"] for entry in mine.state.log_history if "loss" in entry]
    assert len(costs) == 5
    assert costs[-1] <= 0.6


def test_a_language_model_learns_under_a_budget(tmp_path: Path) -> None:
    data = [{"input_ids": IDS[i], "labels": IDS[i]} for i in range(len(IDS))]
    compression = Compression({"input_ids": IDS[:2]}, {"flops": "70%"})
    mine = trainer(tmp_path, gpt2(), compression, data=data, save_strategy="no", gradient_accumulation_steps=3)
    mine.train()
    assert mine.compression.session.check.error < 1e-9
    assert count(mine.model) < count(gpt2())
    logits: Tensor = mine.model.eval()(IDS[:1]).logits
    assert logits.shape == (1, 10, 50)


def test_a_loader_without_length_needs_max_steps(tmp_path: Path) -> None:
    class Lines(Endless):
        def __iter__(self) -> Any:
            return (Sentences()[i % 40] for i in range(10**6))

    mine = trainer(tmp_path, data=Lines(), max_steps=6, save_strategy="no")
    mine.train()
    assert mine.compression.session.steps_done == 6
    mine = trainer(tmp_path, save_strategy="no")
    with pytest.raises(UsageError, match=r"not known beforehand.*max_steps"):
        mine.compression.open(mine.model, -1, "give the TrainingArguments max_steps=")


def test_half_precision(tmp_path: Path) -> None:
    mine = trainer(tmp_path, bf16=True, save_strategy="no")
    mine.train()
    assert count(mine.model) < 0.9 * count(bert())
    mine.save_model(str(tmp_path / "small"))
    assert_same(compressor.load(tmp_path / "small", model=bert()), mine.model)


@pytest.mark.slow
def test_a_compiled_model(tmp_path: Path) -> None:
    plain, compiled = trainer(tmp_path), trainer(tmp_path, torch_compile=True, torch_compile_backend="eager")
    plain.train()
    compiled.train()
    assert_same(compiled.model, plain.model)


def test_what_prepare_refuses_comes_as_its_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="oneshot does not train"):
        Compression(EXAMPLE, BUDGET, search="oneshot")
    with pytest.raises(TypeError, match="speed"):
        Compression(EXAMPLE, BUDGET, speed=1)
    with pytest.raises(UsageError, match="must be a Compression"):
        trainer(tmp_path, compression=BUDGET)
    with pytest.raises(UnreachableBudgetError):
        trainer(tmp_path, compression=Compression(EXAMPLE, {"params": "0.01%"})).train()
    mine = trainer(tmp_path, save_strategy="no")
    session = compressor.prepare(mine.model, Compression(EXAMPLE, BUDGET).plan.example_inputs, BUDGET, total_steps=3)
    with pytest.raises(UsageError, match="has an open session"):
        mine.train()
    session.close()
    with pytest.raises(UsageError, match=f"no checkpoint with {STATE}"):
        mine.train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(UsageError, match=f"has no {STATE}"):
        mine.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def main(folder: Path) -> None:
    """A training in a process of its own."""
    mine = trainer(folder)
    mine.train(resume_from_checkpoint=any(folder.glob(f"checkpoint-*/{STATE}")))
    torch.save(mine.model.state_dict(), folder / "small.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
