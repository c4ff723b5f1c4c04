"""Search while the Trainer of transformers trains a small BERT, save the small network, and load it again.

    pip install 'compressor[hf]'
    python examples/hf_trainer.py --epochs 6 --out small-bert      # sentences of numbers, no download

``Trainer`` becomes ``CompressionTrainer``; a trainer class of your own takes ``CompressionMixin`` before its base.
Interrupted, it goes on with ``trainer.train(resume_from_checkpoint=True)``.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments, set_seed

import compressor
from compressor.integrations.transformers import Compression, CompressionTrainer

WORDS, LENGTH = 64, 12


class Sentences(Dataset[dict[str, Any]]):
    """Random words, and whether there are more of the upper half than of the lower."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(WORDS, (count, LENGTH), generator=generator)
        self.labels = ((self.ids >= WORDS // 2).sum(1) > LENGTH // 2).long()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": int(self.labels[index])}


def bert() -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=WORDS, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=LENGTH, num_labels=2,
        )
    )  # fmt: skip


def right(prediction: Any) -> dict[str, float]:
    return {"right": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main(epochs: int, out: str) -> None:
    set_seed(0)
    model, train, val = bert(), Sentences(1024, seed=0), Sentences(256, seed=1)
    before = sum(p.numel() for p in model.parameters())
    example: dict[str, Tensor] = {name: torch.as_tensor(value)[None] for name, value in train[0].items()}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=16, gradient_accumulation_steps=2,
            learning_rate=1e-3, save_strategy="epoch", save_total_limit=1, report_to=[], disable_tqdm=True,
            logging_strategy="epoch", use_cpu=True, seed=0,
        )  # fmt: skip
        trainer = CompressionTrainer(
            model, arguments, train_dataset=train, eval_dataset=val, compute_metrics=right,
            compression=Compression(example, {"flops": "50%"}),
        )  # fmt: skip
        trainer.train()  # afterwards model is small
        found = trainer.evaluate()["eval_right"]
        trainer.save_model(out)
    after = sum(p.numel() for p in model.parameters())
    print(f"{found:.1%} right, {after} of {before} parameters")

    loaded = compressor.load(out, model=bert())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    print(f"saved {out} and loaded it again")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", default="small-bert", help="folder for the small network")
    main(**vars(parser.parse_args()))
