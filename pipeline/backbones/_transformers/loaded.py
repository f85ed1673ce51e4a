"""Base class of the three families' loaded models: tokenisation, the decoder, the head.

The decoder is driven through ``model.model.language_model`` with embeddings, explicit positions and a 4-D boolean mask, so that
packed questions, shared prefixes and caches are all the same call. Hidden states of inner layers are taken by hooks, which
give the output of a decoder layer with or without gradient checkpointing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.backbones._transformers import images
from pipeline.backbones._transformers.chat import ChatFormat
from pipeline.backbones._transformers.initial import start_embeddings
from pipeline.backbones._transformers.releases import TINY_LAYERS
from pipeline.backbones._transformers.tokenizer import token_id
from pipeline.backbones.base import LoadedBackbone, Prefix
from pipeline.core.errors import ConfigError

TINY_POSITIONS: Final = 4096
"""Position range of tiny configurations; released checkpoints bring their own."""


class LoadedTransformersModel(LoadedBackbone):
    """A ``*ForConditionalGeneration`` model of `transformers` as the parts of LoadedBackbone."""

    chat: ClassVar[ChatFormat]
    normalisation: ClassVar[images.Normalisation]
    model_class: ClassVar[type[PreTrainedModel]]

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, int] | None):
        self.model = model
        self.tokenizer = tokenizer
        text = model.config.get_text_config()
        self.hidden_size = int(text.hidden_size)
        self.num_layers = int(text.num_hidden_layers)
        self._attends = attention_kinds(text)
        self.tokens = tokens or self.default_tokens(model.config)
        """Rows and columns of visual tokens per view."""
        self._visual_id = token_id(tokenizer, self.chat.visual)
        self._prefixes: dict[tuple[int, int, int], Prefix] = {}

    # ------------------------------------------------------------ family specific

    @classmethod
    @abstractmethod
    def tiny_config(cls, tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, int] | None) -> PreTrainedConfig:
        """Return the family's real configuration class at tiny size for this tokenizer."""

    @classmethod
    def start_tiny(cls, model: PreTrainedModel) -> None:
        """Give a tiny model better starting values than its class does, in place."""
        start_embeddings(cast(torch.Tensor, model.get_input_embeddings().weight))

    @classmethod
    @abstractmethod
    def default_tokens(cls, config: PreTrainedConfig) -> tuple[int, int]:
        """Return the default rows and columns of visual tokens per view."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Return the height and width in pixels to which views are squashed."""

    @abstractmethod
    def native_inputs(self, prefix: Prefix, pixels: torch.Tensor, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the keyword arguments of the class's own ``forward`` for one sample.

        ``pixels`` (V,3,h,w) from ``preprocess``; ``input_ids`` (T,) start with the prefix's.
        """

    # ------------------------------------------------------------ inputs

    def preprocess(self, rgb: NDArray[np.uint8]) -> torch.Tensor:
        """Turn uint8 (V,H,W,3) into normalised float32 (V,3,h,w) at ``image_size``."""
        return images.normalise(images.resize(rgb, *self.image_size), self.normalisation)

    def prefix(self, views: int, height_px: int, width_px: int) -> Prefix:
        key = (views, height_px, width_px)
        if key not in self._prefixes:
            self._prefixes[key] = self._prefix(views, self.view_grid(height_px, width_px).count)
        return self._prefixes[key]

    def _prefix(self, views: int, tokens_per_view: int) -> Prefix:
        if views < 1:
            raise ValueError("a prefix needs at least one view")
        ids = np.asarray(self._ids(self.chat.prefix_text(views, tokens_per_view)), dtype=np.int64)
        places = np.flatnonzero(ids == self._visual_id)
        visual = places[: views * tokens_per_view]
        positions = self.positions(ids, visual, views)
        extra = places[views * tokens_per_view :] if self.chat.trailing else None
        return Prefix(ids, visual, positions, int(positions.max()) + 1, extra)

    def positions(self, input_ids: NDArray[np.int64], visual_index: NDArray[np.int64], views: int) -> NDArray[np.int64]:
        """Return position ids (A,P) of a prefix; 1-D by default."""
        return np.arange(len(input_ids), dtype=np.int64)[None]

    def question_ids(self, user_text: str) -> list[int]:
        return self._ids(self.chat.question_text(user_text))

    def answer_ids(self, answer: str) -> list[int]:
        return self._ids(self.chat.answer_text(answer))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    # ------------------------------------------------------------ model parts

    @property
    def decoder(self) -> PreTrainedModel:
        """Return the language model without its head."""
        return self.model.model.language_model

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.get_input_embeddings()(input_ids)

    def language(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        *,
        cache: Any = None,
        layers: Sequence[int] = (-1,),
    ) -> dict[int, torch.Tensor]:
        inner = {layer: self._decoder_layer(layer) for layer in layers if layer not in (0, -1)}
        self._check_window(embeds.shape[1] + (0 if cache is None else cache.get_seq_length()))
        with self._taps(inner) as taken:
            output = self.decoder(
                inputs_embeds=embeds,
                position_ids=self.decoder_positions(positions),
                attention_mask=dict.fromkeys(self._attends, mask) or mask,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        taken[0], taken[-1] = embeds, output.last_hidden_state
        return {layer: taken[layer] for layer in layers}

    def _check_window(self, tokens: int) -> None:
        """Refuse a sequence that a decoder's sliding window would cut: the masks here let every token see all it may."""
        text = self.model.config.get_text_config()
        slides = "sliding_attention" in self._attends or not self._attends
        window = getattr(text, "sliding_window", None) if slides else None
        if window is not None and tokens > window:
            raise ConfigError(
                f"a sequence of {tokens} tokens is longer than the decoder's attention window of {window}",
                where=f"sliding_window of {type(text).__name__}",
                allowed="decoders whose layers see the whole sequence, or a window that holds it",
                fix="fewer views or tokens per view, or another checkpoint",
            )

    def decoder_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """Return positions (A,B,T) in the decoder class's form; (B,T) by default."""
        return positions[0]

    def _decoder_layer(self, layer: int) -> int:
        """Return the index of the decoder layer whose output ``layer`` names (k counts from 1, -k from the end)."""
        index = layer - 1 if layer > 0 else self.num_layers + layer
        if not 0 <= index < self.num_layers:
            raise ValueError(f"layer {layer} of a decoder with {self.num_layers} layers")
        return index

    @contextmanager
    def _taps(self, wanted: dict[int, int]) -> Iterator[dict[int, torch.Tensor]]:
        taken: dict[int, torch.Tensor] = {}
        layers: Any = self.decoder.layers
        handles = [layers[index].register_forward_hook(_tap(taken, layer)) for layer, index in wanted.items()]
        try:
            yield taken
        finally:
            for handle in handles:
                handle.remove()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.lm_head(hidden)


def attention_kinds(text: PreTrainedConfig) -> tuple[str, ...]:
    """Return the kinds of attention that a decoder's layers have, or () where the class knows only one.

    Classes whose configuration lists ``layer_types`` (Qwen2, Gemma) take a mask per kind, the others (Llama, Mistral) one mask.
    ConfigError for layers that no mask can steer (state spaces, linear or chunked attention).
    """
    kinds = tuple(sorted(set(getattr(text, "layer_types", None) or ())))
    others = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]
    if others:
        raise ConfigError(
            f"the decoder has layers of the kind {others[0]!r}",
            where=f"layer_types of {type(text).__name__}",
            allowed="full_attention, sliding_attention: packed questions need a mask that every layer obeys",
            fix="choose a decoder with attention in all layers",
        )
    return kinds


def _tap(taken: dict[int, torch.Tensor], layer: int) -> Callable[[Any, Any, Any], None]:
    def hook(_module: Any, _arguments: Any, output: Any) -> None:
        taken[layer] = output[0] if isinstance(output, tuple) else output

    return hook


def tiny_text_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return decoder settings that all tiny models share: 3 layers of width 128, 4 heads of 32, tied embeddings."""
    return {
        "vocab_size": -(-len(tokenizer) // 8) * 8,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": TINY_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": TINY_POSITIONS,
        "initializer_range": 0.05,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
