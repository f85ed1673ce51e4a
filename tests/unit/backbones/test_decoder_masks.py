"""Decoders of `transformers` behind the backbone base: each is given the mask in the form that its class takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3NextConfig

from pipeline.backbones._transformers.assemble import causal_mask
from pipeline.backbones._transformers.loaded import LoadedTransformersModel, attention_kinds
from pipeline.core.errors import ConfigError
from pipeline.training.attention import enable

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
LENGTH = 12
DECODERS = {
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=16),
    "mistral, no window": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),
    "gemma3": Gemma3TextConfig(**SIZES, sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
}


class _Whole(torch.nn.Module):
    """A language model where the families have theirs: ``model.language_model`` beside the head."""

    def __init__(self, causal: Any):
        super().__init__()
        self.config, self.lm_head, self.model = causal.config, causal.lm_head, torch.nn.Module()
        self.model.language_model = causal.model

    def get_input_embeddings(self) -> Any:
        return self.model.language_model.embed_tokens


def _loaded(config: Any) -> tuple[Any, Any]:
    """(the parts of LoadedBackbone, the class itself) of an untrained decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        causal = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    decoder_only: Any = type("DecoderOnly", (LoadedTransformersModel,), {})
    decoder_only.__abstractmethods__ = frozenset()  # what concerns pictures is never called
    parts = object.__new__(decoder_only)
    parts.model, parts.num_layers, parts._attends = _Whole(causal), config.num_hidden_layers, attention_kinds(config)
    return parts, causal


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS)
def test_hidden_states_equal_the_class_s_own_causal_forward(name: str) -> None:
    parts, causal = _loaded(DECODERS[name])
    ids = torch.arange(LENGTH)[None] * 5 % 64
    embeds, positions = parts.embed(ids), torch.arange(LENGTH)[None, None]
    found = parts.language(embeds, positions, causal_mask(LENGTH, embeds.device), layers=(1, -1))
    own = causal.model(input_ids=ids, output_hidden_states=True)
    assert (found[-1] - own.last_hidden_state).abs().max() < 1e-5
    assert (found[1] - own.hidden_states[1]).abs().max() < 1e-5
    alone = parts.language(embeds, positions, torch.eye(LENGTH, dtype=torch.bool)[None, None])
    assert (alone[-1] - own.last_hidden_state).abs().max() > 1e-3, "the mask counts"


def test_attention_without_a_mask_is_for_decoders_that_hand_it_on() -> None:
    enabled = {name: enable(_loaded(DECODERS[name])[0], "cpu") for name in ("llama", "mistral", "qwen2")}
    assert enabled == {"llama": False, "mistral": False, "qwen2": True}


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_a_sequence_longer_than_the_window_is_refused(name: str) -> None:
    """Every token would see all before it, which the weights have never seen."""
    parts, _ = _loaded(DECODERS[name])
    embeds = torch.zeros(1, 17, 32)
    with pytest.raises(ConfigError, match="17 tokens is longer than the decoder's attention window of 16"):
        parts.language(embeds, torch.arange(17)[None, None], causal_mask(17, embeds.device))


def test_layers_that_obey_no_mask_are_refused() -> None:
    with pytest.raises(ConfigError, match="layers of the kind 'linear_attention'"):
        attention_kinds(Qwen3NextConfig())
