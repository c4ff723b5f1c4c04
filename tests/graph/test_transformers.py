"""Small networks as the transformers package builds them, where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compressor.graph import capture
from compressor.trim import trim_verified

transformers: Any = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50,
    "max_position_embeddings": 64, "num_key_value_heads": 2,
}  # fmt: skip
IDS = torch.arange(5, 17).reshape(1, 12)


def _llama(**kw: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, **kw})).eval()


def _qwen(**kw: Any) -> Any:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**{**SMALL, **kw})).eval()


def _t5(**kw: Any) -> Any:
    config = transformers.T5Config(
        d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8, vocab_size=50, decoder_start_token_id=0, **kw
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def _moe(**kw: Any) -> Any:
    config = transformers.Qwen2MoeConfig(
        **{**SMALL, **kw}, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4,
        num_experts_per_tok=2,
    )  # fmt: skip
    return transformers.Qwen2MoeForCausalLM(config).eval()


def _inputs(model: Any) -> dict[str, Any]:
    return {"input_ids": IDS} | ({"decoder_input_ids": IDS[:, :5]} if model.config.is_encoder_decoder else {})


@pytest.mark.parametrize("make", [_llama, _qwen, _t5, _moe])
def test_heads_go_with_and_without_a_cache(make: Any) -> None:
    widths = []
    for use_cache in (False, True):
        torch.manual_seed(0)
        model = make(use_cache=use_cache)
        graph = capture(model, (), example_kwargs=_inputs(model))
        widths.append(sorted((len(g), g.width) for g in graph.groups))
        for seed in range(2):
            rng = np.random.default_rng(seed)
            units, gates = graph.all_units(), rng.random(len(graph.blocks)) < 0.6
            for group in graph.groups:
                units[group.units[rng.permutation(len(group))[: len(group) // 2]]] = False
            result = trim_verified(model, graph, units, (), _inputs(model), gates=gates)
            assert not result.refused, result.reason
            assert result.check.passed
    assert widths[0] == widths[1]


@pytest.mark.parametrize(("make", "attentions"), [(_llama, 2), (_qwen, 2), (_t5, 3)])
def test_attention_goes_as_a_whole_where_nothing_is_cached(make: Any, attentions: int) -> None:
    """The attention of the first layer of T5 makes the position bias of the others, so it stays."""
    model = make(use_cache=False)
    names = [block.name for block in capture(model, (), example_kwargs=_inputs(model)).blocks]
    attending = ("self_attn", "block.1.layer.0", "decoder.block.1.layer.1")
    assert sum(any(part in name for part in attending) for name in names) >= attentions
    model = make(use_cache=True)
    graph = capture(model, (), example_kwargs=_inputs(model))
    assert not any("self_attn" in module for block in graph.blocks for module in block.modules)


def test_a_trimmed_model_with_a_cache_generates_what_it_generates_without() -> None:
    torch.manual_seed(0)
    model = _llama()
    graph = capture(model, (), example_kwargs=_inputs(model))
    units = graph.all_units()
    for group in graph.groups:
        units[group.units[: len(group) // 2]] = False
    small = trim_verified(model, graph, units, (), _inputs(model), gates=np.arange(len(graph.blocks)) > 0).model
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with_cache = small.generate(IDS, use_cache=True, **options)
    assert with_cache.shape == (1, 18)
    assert torch.equal(with_cache, small.generate(IDS, use_cache=False, **options))
