"""Models of transformers from folders: with their weights, by their own head or the data's, and from saved ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.data import load_data
from compressor.errors import UnsupportedModelError, UsageError
from compressor.models import load_model
from compressor.models.rebuilding import rebuild
from tests.models import hf_folders as hf

transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
pytest.importorskip("datasets", reason="the extra hf is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("made", "auto", "kind"),
    [
        (hf.bert, "AutoModelForSequenceClassification", "BertForSequenceClassification"),
        (hf.llama, "AutoModelForCausalLM", "LlamaForCausalLM"),
        (hf.gpt2, "AutoModelForCausalLM", "GPT2LMHeadModel"),
        (hf.vit, "AutoModelForImageClassification", "ViTForImageClassification"),
    ],
)
def test_a_folder_is_the_model_that_transformers_loads(tmp_path: Path, made: Any, auto: str, kind: str) -> None:
    loaded = load_model(f"hf:{made(tmp_path)}")
    assert type(loaded.model).__name__ == kind
    assert loaded.weights.pretrained
    assert loaded.weights.warning is None
    expected = getattr(transformers, auto).from_pretrained(tmp_path, local_files_only=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded.example.run(loaded.model).logits, loaded.example.run(expected).logits)
    again = rebuild(json.loads(json.dumps(loaded.describe())), trust_factories=())
    again.load_state_dict(loaded.model.state_dict())
    with torch.no_grad():
        assert torch.equal(loaded.example.run(again).logits, loaded.example.run(loaded.model).logits)


def test_a_head_that_the_weights_lack_is_random_and_said(tmp_path: Path) -> None:
    spec = f"hf:{hf.bert(tmp_path, pretraining=True)}"
    loaded, again, other = (
        load_model(spec, num_classes=3, vocabulary=17, example_shape=(6,), seed=seed) for seed in (0, 0, 1)
    )
    assert type(loaded.model).__name__ == "BertForSequenceClassification"
    assert loaded.input_shape == (6,)
    assert {"classifier.weight", "classifier.bias"} <= set(loaded.weights.reset)
    assert "classifier.weight" in str(loaded.weights.warning)
    own, same, differs = (each.model.state_dict()["classifier.weight"] for each in (loaded, again, other))
    assert own.shape == (3, 16)
    assert torch.equal(own, same)
    assert not torch.equal(own, differs)
    untrained = load_model(spec, weights="none", num_classes=3)
    assert not untrained.weights.pretrained
    assert load_model(f"hf:{hf.bert(tmp_path / 'b')}", num_classes=5).weights.reset == (
        "classifier.bias",
        "classifier.weight",
    )


def test_what_is_not_there_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hf download someone/some-model"):
        load_model("hf:someone/some-model")
    with pytest.raises(UsageError, match=r"has no config\.json"):
        load_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "perpetuum-mobile"}', encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match="does not know the configuration"):
        load_model(f"hf:{tmp_path}")


def test_a_name_is_looked_up_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    cached, commit = tmp_path / "models--someone--tiny", "a" * 40
    hf.bert(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    loaded = load_model("hf:someone/tiny")
    assert loaded.weights.origin == "hf:someone/tiny"
    assert loaded.weights.pretrained


def test_what_a_model_does_not_take_is_refused(tmp_path: Path) -> None:
    spec = f"hf:{hf.bert(tmp_path)}"
    with pytest.raises(UsageError, match="knows 17 tokens, and the data has 40"):
        load_model(spec, num_classes=2, vocabulary=40, example_shape=(6,))
    with pytest.raises(UsageError, match="has 32 positions, and inputs have 64"):
        load_model(spec, example_shape=(64,))
    with pytest.raises(UsageError, match="takes tokens"):
        load_model(spec, example_shape=(3, 32, 32))
    images = load_model(f"hf:{hf.vit(tmp_path / 'vit')}", num_classes=7, example_shape=(3, 16, 16))
    assert images.example.run(images.model).logits.shape == (1, 7)
    classifier = load_model(f"hf:{hf.gpt2(tmp_path / 'gpt2')}", num_classes=3, vocabulary=17, example_shape=(6,))
    assert classifier.example.run(classifier.model).logits.shape == (1, 3)


def test_without_weights_it_is_random_and_said(tmp_path: Path) -> None:
    hf.bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    loaded = load_model(f"hf:{tmp_path}")
    assert "NO PRETRAINED WEIGHTS" in str(loaded.weights.warning)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "os.system"}, "expected a config and a head"),
        ({"more": 1}, "expected a config and a head"),
        ({"config": {"model_type": "evil"}}, "which transformers has not"),
        ({"config": {"model_type": "bert", "auto_map": {"AutoModel": "x--y.Z"}}}, "auto_map"),
        ({"config": {"model_type": "bert", "hidden_size": 10**9}}, "more than a model has"),
        ({"config": {"model_type": "bert", "deep": [[{"x": 10**12}]]}}, "more than a model has"),
    ],
)
def test_a_folder_describes_nothing_but_models(changes: dict[str, Any], said: str) -> None:
    kwargs = {"config": {"model_type": "bert"}, "head": "backbone", **changes}
    with pytest.raises(UsageError, match=said):
        rebuild({"spec": "hf:x", "source": "hf", "kwargs": kwargs}, trust_factories=(), longest=64)


def test_text_is_classified_by_a_smaller_model(tmp_path: Path) -> None:
    folder = hf.bert(tmp_path / "model", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    told = load_data(f"hf:{hf.reviews(tmp_path / 'data', 256)}", model=f"hf:{folder}")
    asked: Any = {"num_classes": told.outputs, "vocabulary": told.vocabulary, "example_shape": told.input_shape}
    model: Any = load_model(f"hf:{folder}", **asked).model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for epoch in range(6):
        for inputs, labels in told.train.batches(16, shuffle_seed=epoch):
            model(**inputs, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    training = compressor.Training(search_epochs=2, finetune_epochs=2, lr=0.02, batch_size=16)
    trained = load_model(f"hf:{folder}", **asked).model
    result = compressor.compress(trained, told.example, {"flops": "60%"}, data=told, training=training)
    found = result.report.accuracy
    assert found is not None
    assert found.before == 1
    assert found.final is not None
    assert found.final > 0.9


def test_a_language_model_becomes_smaller_and_is_judged_by_perplexity(tmp_path: Path) -> None:
    model, data = hf.llama(tmp_path / "model"), hf.reviews(tmp_path / "data", labelled=False)
    told = load_data(f"hf:{data},length=16", model=f"hf:{model}")
    loaded = load_model(f"hf:{model}", vocabulary=told.vocabulary, dense=True, example_shape=told.input_shape)
    training = compressor.Training(search_epochs=1, finetune_epochs=4, lr=0.2, batch_size=8, distill=0.3)
    result = compressor.compress(loaded.model, told.example, {"flops": "75%"}, data=told, training=training)
    error = result.report.prediction_error
    assert error is not None
    assert error.metric == "perplexity"
    assert 1 < error.final < error.before <= 40
    result.save(tmp_path / "small")
    again = compressor.load(tmp_path / "small", model=rebuild(loaded.describe()))
    with torch.no_grad():
        assert torch.equal(told.example.run(again).logits, told.example.run(result.model).logits)
