"""Folders as users of transformers and datasets have them: tiny models with random weights, a tokenizer, sentences."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

WORDS = ["good", "fine", "great", "bad", "poor", "awful", "film", "book", "song", "the", "a", "was", "very", "not"]


def tokenizer(folder: Path) -> None:
    """A word for each of ``WORDS``."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[EOS]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", model_max_length=32
    ).save_pretrained(folder)


def bert(folder: Path, *, pretraining: bool = False, **changed: Any) -> Path:
    """A classifier, or with ``pretraining`` what it would begin from."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=17, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, **changed,
    )  # fmt: skip
    kind = transformers.BertForMaskedLM if pretraining else transformers.BertForSequenceClassification
    kind(config).save_pretrained(folder)
    tokenizer(folder)
    return folder


def llama(folder: Path) -> Path:
    """A language model with grouped heads."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=17, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=32, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer(folder)
    return folder


def gpt2(folder: Path) -> Path:
    """A language model with learned positions and tied weights."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=17, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=2, eos_token_id=2
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer(folder)
    return folder


def vit(folder: Path) -> Path:
    """A classifier of images (3, 16, 16)."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


def sentences(count: int, seed: int = 0) -> dict[str, list[Any]]:
    """Judgements, and whether they are kind."""
    draw = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        kind = draw.random() < 0.5
        judgement = draw.choice(WORDS[:3] if kind else WORDS[3:6])
        very = "very " * draw.randrange(3)
        texts.append(f"{draw.choice(['the', 'a'])} {draw.choice(WORDS[6:9])} was {very}{judgement}")
        labels.append(int(kind))
    return {"text": texts, "label": labels}


def reviews(folder: Path, train: int = 96, *, labelled: bool = True) -> Path:
    """Sentences as ``save_to_disk`` writes them, with a split for validation."""
    import datasets

    splits = {
        name: datasets.Dataset.from_dict(
            {key: values for key, values in sentences(count, seed).items() if labelled or key == "text"}
        )
        for seed, (name, count) in enumerate({"train": train, "validation": 32}.items())
    }
    datasets.DatasetDict(splits).save_to_disk(folder)
    return folder
