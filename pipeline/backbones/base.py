"""Interface of a backbone: a multimodal LLM of a `transformers` family, cut where alignment and packing need it.

A member is ``backbones/<kind>.py``: a light class (no torch at import). ``build``/``load`` return a ``LoadedBackbone`` whose
parts the rest of the system combines itself:

    pixels      = loaded.preprocess(rgb)                         uint8 (V,H,W,3) -> model's own pixel tensors of one scene
    visual      = loaded.encode_views(batch of pixels)           -> (S, V*N, C) projected visual tokens, row-major per view
    prefix      = loaded.prefix(views, height_px, width_px)      token ids before any question, images included
    hidden      = loaded.language(embeds, positions, mask, cache)   decoder hidden states
    logits      = loaded.logits(hidden rows)

so that (a) several questions share one visual prefix, (b) world-position encodings can be added to visual tokens, (c) logits
are computed at answer positions only, and (d) nothing depends on Processor classes (which need torchvision).
The conformance suite proves for every backbone that these parts put together equal the class's own forward on the same
sample, and that each visual token looks where ``view_grid`` says.

A backbone of `transformers` derives from ``mllm.member.TransformersBackbone`` and ``mllm.loaded.LoadedTransformersModel``: the
workflow's 2D pretraining, its training and the suite (tests/conformance/test_backbones.py) use what these add. The suite
builds the tiny model and asks: parts equal ``model(**native_inputs)``; layers are named as in ``language``; saved and loaded is
equal bit for bit; the seed alone decides the weights; questions packed behind one prefix, behind a cache and in batches equal
single ones; ``chat`` tokenises in parts as its template does in one; ``vision_parameters`` is the tower alone, whose attention
outputs are named as in CLIP or SigLIP (``self_attn.out_proj``), Qwen (``attn.proj``) or InternVL (``projection_layer``).
docs/extending.md has a complete file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.files import writing
from pipeline.core.options import Options
from pipeline.core.releases import Licence, WeightFile
from pipeline.scenes.grid import TokenGrid

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GROUND_TOKEN = "<ground>"
COORD_TOKEN = "<coord>"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The part of the input that all questions of a scene share: chat head, images, instruction sentence.

    ``input_ids`` int64 (P,); ``visual_index`` int64 (V*N,): positions of visual tokens in view, row, column order;
    ``positions`` int64 (A,P): position ids (A = 1 for 1-D, 3 for M-RoPE t,h,w); ``next_position``: where text goes on.
    Newline/separator tokens that the family inserts are in ``input_ids`` and not in ``visual_index``; if such a token has
    a learned embedding outside the table, ``extra_index`` says where it goes (LLaVA's ``image_newline``).
    """

    input_ids: NDArray[np.int64]
    visual_index: NDArray[np.int64]
    positions: NDArray[np.int64]
    next_position: int
    extra_index: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Sizes of a released model, from which its work is estimated.

    ``language`` and ``vision``: parameters of the two parts (projector and embeddings count as language); ``layers`` and
    ``width`` of the decoder; per view ``tokens`` in the decoder and ``patches`` in the vision tower.
    """

    language: int
    vision: int
    layers: int
    width: int
    tokens: int
    patches: int

    @property
    def parameters(self) -> int:
        """Return the number of all parameters."""
        return self.language + self.vision


class LoadedBackbone(ABC):
    """A backbone in memory: ``model`` is the `transformers` module (trainable), ``tokenizer`` its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    hidden_size: int
    num_layers: int

    @abstractmethod
    def view_grid(self, height_px: int, width_px: int) -> TokenGrid:
        """Return where the N = rows*cols visual tokens of one view look, in normalised coordinates of the ORIGINAL image."""

    @abstractmethod
    def preprocess(self, rgb: NDArray[np.uint8]) -> torch.Tensor:
        """Turn views uint8 (V,H,W,3) into the family's pixel tensor (V, ...), float32, one leading entry per view."""

    @abstractmethod
    def encode_views(self, pixels: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
        """Encode pixels (S, V, ...) of scenes with equally sized images to projected visual tokens (S, V*N, C)."""

    @abstractmethod
    def prefix(self, views: int, height_px: int, width_px: int) -> Prefix:
        """Return the shared prefix for V views of this size: chat template, then images, then ``prompts.INSTRUCTION``."""

    @abstractmethod
    def question_ids(self, user_text: str) -> list[int]:
        """Return the token ids after the prefix: the user's text, end of turn, start of the assistant's turn."""

    @abstractmethod
    def answer_ids(self, answer: str) -> list[int]:
        """Return token ids of an answer with the end-of-turn token (training target)."""

    @abstractmethod
    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Look up the embedding table (..., C)."""

    def insert_extra(self, embeds: torch.Tensor, prefix: Prefix) -> torch.Tensor:
        """Put learned separator embeddings at ``prefix.extra_index`` of (S,P,C) prefix embeddings (default: nothing)."""
        return embeds

    @abstractmethod
    def language(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        *,
        cache: Any = None,
        layers: Sequence[int] = (-1,),
    ) -> dict[int, torch.Tensor]:
        """Run the decoder on ``embeds`` (B,T,C) and return hidden states (B,T,C) per asked layer.

        ``positions`` int64 (A,B,T) as in Prefix; ``mask`` bool (B,1,T,past+T), True = may attend; ``cache`` a
        transformers Cache that is extended in place. Layer k > 0 is the output of decoder layer k, 0 the embeddings,
        ``-1`` the output after the final norm (what 3DRS aligns), ``-k`` the output of the k-th last layer for k > 1.
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the language-model head to any rows (..., C) -> (..., vocabulary)."""

    @abstractmethod
    def vision_parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters of the vision tower (own learning rate, may be frozen), without the projector."""

    def save(self, folder: Path) -> None:
        """Write model (safetensors) and tokenizer in the transformers layout; each file is whole and as readable as usual."""
        with writing(folder) as private:
            self.model.save_pretrained(private)
            self.tokenizer.save_pretrained(private)


class Backbone(ABC):
    """One backbone kind (a family of MLLMs)."""

    options_model: ClassVar[type[Options]] = Options

    def __init__(self, name: str, options: Options):
        self.name = name
        self.options = options

    @abstractmethod
    def pretrain_dataset(self) -> str | None:
        """Return the dataset for 2D pretraining of a backbone built in the workflow (size: tiny); None for a checkpoint."""

    @abstractmethod
    def build(self, tokenizer_folder: Path, *, seed: int, device: str) -> LoadedBackbone:
        """Build a randomly initialised model of the configured size with a tokenizer trained offline."""

    @abstractmethod
    def load(self, folder: Path, *, device: str) -> LoadedBackbone:
        """Load from a folder written by ``save`` or from a released checkpoint. Raises CheckpointError."""

    def licences(self) -> Licence:
        """Return the licence of code and weights of this backbone. Default: built in the workflow, no third-party weights."""
        return Licence(code="Apache-2.0 (this project)", weights="none", commercial=True)

    def weight_files(self) -> tuple[WeightFile, ...]:
        """Return the released weights needed before the first run; none for backbones built in the workflow."""
        return ()

    def check_weights(self) -> None:  # noqa: B027 - backbones without released weights have nothing to check
        """Check that all files are there and that names and shapes of all weights fit, without reading the weights.

        Raises CheckpointError for missing, partial or other weights.
        """

    def depth(self) -> int | None:
        """Return the number of decoder layers where it is known without loading anything, else None."""
        return None

    def size(self) -> ModelSize | None:
        """Return a released model's size, from its checkpoint or as published; None when neither is known."""
        return None
