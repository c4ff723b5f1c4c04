"""Networks that other packages build, from small configurations and with random weights.

Each entry makes a model, its positional and its keyword inputs. Packages that are not installed are left out; the extra
``zoo`` has them. Ultralytics' networks are under AGPL and no dependency of anything here; where a user has the package,
``compress --model mypackage.nets:yolo`` with ``YOLO("yolo11n.yaml").model`` in that function takes them like any other.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

Made = tuple[Any, tuple[Any, ...], dict[str, Any]]
Make = Callable[[], Made]

PACKAGES = {
    "transformers": "transformers",
    "diffusers": "diffusers",
    "smp": "segmentation_models_pytorch",
    "monai": "monai",
    "torchaudio": "torchaudio",
}


def names() -> list[str]:
    """``package:model`` for every package that is installed."""
    return [
        f"{package}:{name}"
        for package, module in PACKAGES.items()
        if importlib.util.find_spec(module) is not None
        for name in MODELS[package]
    ]


def build(name: str) -> Made:
    """The model in evaluation mode with its inputs."""
    package, _, model = name.partition(":")
    torch.manual_seed(0)
    made, args, kwargs = MODELS[package][model]()
    return made.eval(), args, kwargs


# ---- transformers

_TEXT = {"vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_WIDE = {"intermediate_size": 96, "max_position_embeddings": 64}
_KV = {"num_key_value_heads": 2}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SEQ2SEQ = {
    "vocab_size": 99, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "decoder_start_token_id": 1,
}  # fmt: skip
_IMAGE = {"image_size": 32, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
          "intermediate_size": 96}  # fmt: skip


def _ids(length: int = 16) -> torch.Tensor:
    return torch.randint(5, 90, (1, length))


def _hf(kind: str, config: str, inputs: Callable[[], dict[str, Any]], **settings: Any) -> Make:
    def make() -> Made:
        import transformers

        transformers.logging.set_verbosity_error()
        return getattr(transformers, kind)(getattr(transformers, config)(**settings)), (), inputs()

    return make


def _reads(kind: str, **settings: Any) -> Make:
    """A model of token ids; ``kind`` is its class, from which the name of its configuration follows."""
    stem = kind.partition("For")[0].removesuffix("Model").removesuffix("LMHead")
    return _hf(kind, f"{stem}Config", lambda: {"input_ids": _ids()}, **settings)


def _sees(kind: str, *, size: int = 32, **settings: Any) -> Make:
    stem = kind.partition("For")[0].removesuffix("Model")
    return _hf(kind, f"{stem}Config", lambda: {"pixel_values": torch.randn(1, 3, size, size)}, **settings)


def _translates(kind: str, **settings: Any) -> Make:
    stem = kind.partition("For")[0]
    return _hf(kind, f"{stem}Config", lambda: {"input_ids": _ids(), "decoder_input_ids": _ids(7)}, **settings)


def _clip() -> Made:
    import transformers

    text = {**_TEXT, **_WIDE, "eos_token_id": 98}
    config = transformers.CLIPConfig(text_config=text, vision_config=_IMAGE, projection_dim=32)
    return transformers.CLIPModel(config), (), {"input_ids": _ids(), "pixel_values": torch.randn(1, 3, 32, 32)}


_TRANSFORMERS: dict[str, Make] = {
    "bert": _reads("BertForSequenceClassification", **_TEXT, **_WIDE),
    "roberta": _reads("RobertaForTokenClassification", **_TEXT, **_WIDE),
    "distilbert": _reads("DistilBertForSequenceClassification", vocab_size=99, dim=64, n_layers=2, n_heads=4,
                         hidden_dim=96, max_position_embeddings=64),
    "albert": _reads("AlbertForSequenceClassification", **{**_TEXT, "num_hidden_layers": 4}, **_WIDE,
                     embedding_size=32),
    "deberta_v2": _reads("DebertaV2ForSequenceClassification", **_TEXT, **_WIDE, relative_attention=True,
                         position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p"),
    "electra": _reads("ElectraForSequenceClassification", **_TEXT, **_WIDE, embedding_size=32),
    "mpnet": _reads("MPNetForSequenceClassification", **_TEXT, **_WIDE),
    "gpt2": _reads("GPT2LMHeadModel", vocab_size=99, n_embd=64, n_layer=2, n_head=4, n_positions=64),
    "gpt_neox": _reads("GPTNeoXForCausalLM", **_TEXT, **_WIDE),
    "opt": _reads("OPTForCausalLM", **_TEXT, ffn_dim=96, max_position_embeddings=64, word_embed_proj_dim=64),
    "bloom": _reads("BloomForCausalLM", vocab_size=99, hidden_size=64, n_layer=2, n_head=4),
    "falcon": _reads("FalconForCausalLM", **_TEXT),
    "llama": _reads("LlamaForCausalLM", **_TEXT, **_WIDE, **_KV),
    "llama without cache": _reads("LlamaForCausalLM", **_TEXT, **_WIDE, **_KV, use_cache=False),
    "mistral": _reads("MistralForCausalLM", **_TEXT, **_WIDE, **_KV),
    "qwen2": _reads("Qwen2ForCausalLM", **_TEXT, **_WIDE, **_KV),
    "qwen3": _reads("Qwen3ForCausalLM", **_TEXT, **_WIDE, **_KV, head_dim=16),
    "gemma": _reads("GemmaForCausalLM", **_TEXT, **_WIDE, **_KV, head_dim=16),
    "phi": _reads("PhiForCausalLM", **_TEXT, **_WIDE),
    "phi3": _reads("Phi3ForCausalLM", **_TEXT, **_WIDE, **_KV, pad_token_id=0),
    "mixtral": _reads("MixtralForCausalLM", **_TEXT, **_WIDE, **_KV, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": _reads("Qwen2MoeForCausalLM", **_TEXT, **_WIDE, **_KV, **_EXPERTS,
                        shared_expert_intermediate_size=32),
    "qwen3_moe": _reads("Qwen3MoeForCausalLM", **_TEXT, **_WIDE, **_KV, **_EXPERTS, head_dim=16),
    "mamba": _reads("MambaForCausalLM", vocab_size=99, hidden_size=64, num_hidden_layers=2, state_size=8),
    "t5": _translates("T5ForConditionalGeneration", vocab_size=99, d_model=64, d_kv=16, d_ff=96, num_layers=2,
                      num_heads=4, decoder_start_token_id=0),
    "bart": _translates("BartForConditionalGeneration", **_SEQ2SEQ, max_position_embeddings=64),
    "marian": _hf("MarianMTModel", "MarianConfig",
                      lambda: {"input_ids": _ids(), "decoder_input_ids": _ids(7)}, **_SEQ2SEQ, pad_token_id=0),
    "vit": _sees("ViTForImageClassification", **_IMAGE),
    "deit": _sees("DeiTForImageClassification", **_IMAGE),
    "beit": _sees("BeitForImageClassification", **_IMAGE),
    "dinov2": _sees("Dinov2ForImageClassification", **{k: v for k, v in _IMAGE.items() if k != "intermediate_size"}),
    "swin": _sees("SwinForImageClassification", size=64, image_size=64, patch_size=4, embed_dim=32, depths=[2, 2],
                  num_heads=[2, 4], window_size=4),
    "convnext": _sees("ConvNextForImageClassification", hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1]),
    "segformer": _sees("SegformerForSemanticSegmentation", size=64, hidden_sizes=[16, 32, 40, 64],
                       depths=[1, 1, 1, 1], decoder_hidden_size=32, num_attention_heads=[1, 2, 2, 4]),
    "resnet": _sees("ResNetForImageClassification", embedding_size=16, hidden_sizes=[16, 24, 32, 48],
                    depths=[1, 1, 2, 1]),
    "mobilevit": _sees("MobileViTForImageClassification", size=64, hidden_sizes=[24, 32, 40], image_size=64,
                       neck_hidden_sizes=[8, 16, 16, 24, 32, 40, 64]),
    "clip": _clip,
    "whisper": _hf("WhisperForConditionalGeneration", "WhisperConfig",
                   lambda: {"input_features": torch.randn(1, 16, 60), "decoder_input_ids": _ids(7)},
                   **_SEQ2SEQ, num_mel_bins=16, max_source_positions=30, max_target_positions=32, pad_token_id=0),
    "wav2vec2": _hf("Wav2Vec2ForCTC", "Wav2Vec2Config", lambda: {"input_values": torch.randn(1, 2000)}, **_TEXT,
                    intermediate_size=96, conv_dim=[32, 32, 32], conv_stride=[5, 2, 2], conv_kernel=[10, 3, 3],
                    num_feat_extract_layers=3, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4),
}  # fmt: skip


# ---- diffusers


def _diffuses(kind: str, inputs: Callable[[], tuple[Any, ...]], **settings: Any) -> Make:
    def make() -> Made:
        import diffusers

        return getattr(diffusers, kind)(**settings), inputs(), {}

    return make


_LATENT = {"sample_size": 16, "in_channels": 4, "out_channels": 4, "norm_num_groups": 8, "layers_per_block": 1}
_DIFFUSERS: dict[str, Make] = {
    "unet2d": _diffuses("UNet2DModel", lambda: (torch.randn(1, 4, 16, 16), torch.tensor([3])), **_LATENT,
                        block_out_channels=(32, 64), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                        up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8),
    "unet2d condition": _diffuses(
        "UNet2DConditionModel", lambda: (torch.randn(1, 4, 16, 16), torch.tensor([3]), torch.randn(1, 7, 32)),
        **_LATENT, block_out_channels=(32, 64), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32, attention_head_dim=8),
    "dit": _diffuses("DiTTransformer2DModel",
                     lambda: (torch.randn(1, 4, 16, 16), torch.tensor([3]), torch.tensor([1])), sample_size=16,
                     num_layers=2, patch_size=2, attention_head_dim=16, num_attention_heads=4, in_channels=4,
                     out_channels=8, num_embeds_ada_norm=10),
    "pixart": _diffuses("PixArtTransformer2DModel",
                        lambda: (torch.randn(1, 4, 16, 16), torch.randn(1, 7, 32), torch.tensor([3]),
                                 {"resolution": None, "aspect_ratio": None}), sample_size=16, num_layers=2,
                        patch_size=2, attention_head_dim=16, num_attention_heads=4, in_channels=4, out_channels=8,
                        cross_attention_dim=64, caption_channels=32),
    "autoencoder": _diffuses("AutoencoderKL", lambda: (torch.randn(1, 3, 32, 32),), block_out_channels=(32, 64),
                             down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                             latent_channels=4, norm_num_groups=8, sample_size=32),
    "vq model": _diffuses("VQModel", lambda: (torch.randn(1, 3, 32, 32),), block_out_channels=(32, 64),
                          down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                          latent_channels=3, norm_num_groups=8, num_vq_embeddings=32),
    "sd3": _diffuses("SD3Transformer2DModel",
                     lambda: (torch.randn(1, 4, 16, 16), torch.randn(1, 7, 32), torch.randn(1, 24), torch.tensor([3])),
                     sample_size=16, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=16,
                     num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=64,
                     pooled_projection_dim=24, out_channels=4, pos_embed_max_size=16),
}  # fmt: skip


# ---- segmentation, medical images, sound


def _segments(kind: str, encoder: str = "resnet18", size: int = 64) -> Make:
    def make() -> Made:
        import segmentation_models_pytorch as smp

        made = getattr(smp, kind)(encoder, encoder_weights=None, classes=3)
        return made, (torch.randn(1, 3, size, size),), {}

    return make


_SMP: dict[str, Make] = {
    **{kind.lower(): _segments(kind) for kind in ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet",
                                                   "DeepLabV3", "DeepLabV3Plus", "UPerNet")},
    "segformer": _segments("Segformer", "mit_b0"),
    "unet mobilenet_v2": _segments("Unet", "mobilenet_v2"),
    "unet efficientnet-b0": _segments("Unet", "efficientnet-b0"),
    "pan": _segments("PAN", size=128),
    "dpt": _segments("DPT", "tu-vit_tiny_patch16_224", 224),
}  # fmt: skip


def _medical(kind: str, *shape: int, **settings: Any) -> Make:
    def make() -> Made:
        nets = importlib.import_module("monai.networks.nets")
        return getattr(nets, kind)(**settings), (torch.randn(1, *shape),), {}

    return make


_TWO = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
_MONAI: dict[str, Make] = {
    "unet": _medical("UNet", 1, 32, 32, **_TWO, channels=(8, 16, 32), strides=(2, 2), num_res_units=2),
    "basic unet": _medical("BasicUNet", 1, 32, 32, **_TWO, features=(8, 8, 16, 32, 48, 8)),
    "dyn unet": _medical("DynUNet", 1, 32, 32, **_TWO, kernel_size=[3, 3, 3], strides=[1, 2, 2],
                         upsample_kernel_size=[2, 2], filters=[8, 16, 32], res_block=True),
    "seg resnet": _medical("SegResNet", 1, 32, 32, **_TWO, init_filters=8),
    "attention unet": _medical("AttentionUnet", 1, 32, 32, **_TWO, channels=(8, 16, 32), strides=(2, 2)),
    "v net": _medical("VNet", 1, 32, 32, **_TWO),
    "unetr": _medical("UNETR", 1, 32, 32, **_TWO, img_size=32, feature_size=8, hidden_size=48, mlp_dim=64,
                      num_heads=4),
    "swin unetr": _medical("SwinUNETR", 1, 64, 64, **_TWO, feature_size=12),
    "vit": _medical("ViT", 1, 32, 32, in_channels=1, img_size=32, patch_size=8, spatial_dims=2, hidden_size=48,
                    mlp_dim=64, num_layers=2, num_heads=4, classification=True),
    "densenet": _medical("DenseNet", 1, 32, 32, **_TWO, init_features=16, growth_rate=8, block_config=(2, 2)),
    "3d unet": _medical("UNet", 1, 16, 16, 16, spatial_dims=3, in_channels=1, out_channels=2, channels=(8, 16),
                        strides=(2,)),
}  # fmt: skip


def _hears(kind: str, inputs: Callable[[], tuple[Any, ...]], **settings: Any) -> Make:
    def make() -> Made:
        models = importlib.import_module("torchaudio.models")
        return getattr(models, kind)(**settings), inputs(), {}

    return make


_TORCHAUDIO: dict[str, Make] = {
    "conv tasnet": _hears("ConvTasNet", lambda: (torch.randn(1, 1, 800),), enc_num_feats=32, msk_num_feats=24,
                          msk_num_hidden_feats=48, msk_num_layers=3, msk_num_stacks=2),
    "wav2letter": _hears("Wav2Letter", lambda: (torch.randn(1, 1, 2000),), num_classes=12),
    "deep speech": _hears("DeepSpeech", lambda: (torch.randn(1, 1, 20, 16),), n_feature=16, n_hidden=48),
    "conformer": _hears("Conformer", lambda: (torch.randn(1, 20, 32), torch.tensor([20])), input_dim=32, num_heads=4,
                        ffn_dim=48, num_layers=2, depthwise_conv_kernel_size=7),
    "emformer": _hears("Emformer", lambda: (torch.randn(1, 20, 32), torch.tensor([16])), input_dim=32, num_heads=4,
                       ffn_dim=48, num_layers=2, segment_length=4, right_context_length=4),
    "wavernn": _hears("WaveRNN", lambda: (torch.randn(1, 1, 240), torch.randn(1, 1, 8, 12)),
                      upsample_scales=[2, 3, 5], n_classes=16, hop_length=30, n_res_block=2, n_rnn=32, n_fc=32,
                      n_hidden=16, n_freq=8, n_output=16),
    "wav2vec2": _hears("wav2vec2_model", lambda: (torch.randn(1, 2000),), extractor_mode="group_norm",
                       extractor_conv_layer_config=[(32, 10, 5), (32, 3, 2)], extractor_conv_bias=False,
                       encoder_embed_dim=64, encoder_projection_dropout=0.0, encoder_pos_conv_kernel=16,
                       encoder_pos_conv_groups=4, encoder_num_layers=2, encoder_num_heads=4,
                       encoder_attention_dropout=0.0, encoder_ff_interm_features=96, encoder_ff_interm_dropout=0.0,
                       encoder_dropout=0.0, encoder_layer_norm_first=False, encoder_layer_drop=0.0, aux_num_out=12),
}  # fmt: skip

MODELS: dict[str, dict[str, Make]] = {
    "transformers": _TRANSFORMERS,
    "diffusers": _DIFFUSERS,
    "smp": _SMP,
    "monai": _MONAI,
    "torchaudio": _TORCHAUDIO,
}
