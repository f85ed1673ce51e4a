"""Base class of backbone members from `transformers` families. It imports torch and transformers only to make a model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.backbones._transformers.chat import ChatFormat
from pipeline.backbones._transformers.releases import TINY_LAYERS, Release, release_of
from pipeline.backbones.base import Backbone, LoadedBackbone, ModelSize
from pipeline.core.errors import CheckpointError
from pipeline.core.hf_folder import layer_count
from pipeline.core.options import Options
from pipeline.core.releases import Licence, WeightFile

if TYPE_CHECKING:
    from pipeline.backbones._transformers.loaded import LoadedTransformersModel


class PretrainOptions(Options):
    """2D pretraining of a backbone that is built here: questions about single views, no 3D facts."""

    dataset: str = Field("rooms", description="Dataset (config key) whose training views it learns from.")
    vocabulary: int = Field(1000, ge=300, le=32_000, description="Tokens of the tokenizer trained on the dataset's texts.")
    referring_steps: int = Field(100, ge=0, description="Steps of stage 1, language: understanding and writing descriptions.")
    referring_per_step: int = Field(64, ge=1, le=4096, description="Descriptions in a step of stage 1.")
    referring_learning_rate: float = Field(1e-3, gt=0, le=0.1, description="Peak learning rate of stage 1 (AdamW).")
    reading_steps: int = Field(
        270, ge=0, description="Steps of stage 2, reading: questions behind cells that are given as true words."
    )
    reading_learning_rate: float = Field(2e-3, gt=0, le=0.1, description="Peak learning rate of stage 2.")
    word_steps: int = Field(1000, ge=0, description="Steps of stage 3, vision: cells are drawn to the words of what they show.")
    word_views_per_step: int = Field(16, ge=1, le=4096, description="Single views in a step of stage 3.")
    word_learning_rate: float = Field(3e-3, gt=0, le=0.1, description="Peak learning rate of stage 3.")
    steps: int = Field(150, ge=1, description="Steps of stage 4, all: questions about views.")
    learning_rate: float = Field(1.5e-3, gt=0, le=0.1, description="Peak learning rate of stage 4.")
    vision_rate: float = Field(
        0.1, ge=0, le=1, description="Vision tower's share of the learning rate in stage 4 (after stage 3)."
    )
    word_weight: float = Field(0.3, ge=0, description="Weight of the cells' words beside the questions in stage 4.")
    views_per_step: int = Field(12, ge=1, le=4096, description="Single views in a step of stages 2 and 4.")
    pointing_per_view: int = Field(4, ge=0, le=64, description="Pointing questions per view (the red chair: which cells?).")
    questions_per_view: int = Field(6, ge=1, le=64, description="Questions packed behind one view.")
    texts_per_step: int = Field(4, ge=0, le=1024, description="Sentences without any view in a step of stages 2 and 4.")
    warmup: float = Field(0.05, ge=0, le=0.5, description="Share of a stage with rising learning rate; cosine after it.")
    weight_decay: float = Field(0.02, ge=0, le=1, description="AdamW's weight decay (matrices only).")
    held_out: float = Field(0.05, gt=0, lt=0.5, description="Last share of the scenes, kept for the reported accuracy.")
    checkpoint_steps: int = Field(200, ge=1, description="Steps between checkpoints.")
    seed: int = Field(0, ge=0, description="Seed of weights and of the order of views.")


class BackboneOptions(Options):
    """Either a tiny model built and pretrained here, or a released checkpoint."""

    size: Literal["tiny"] | None = Field(None, description="Build this size here (default: tiny unless `checkpoint` is set).")
    checkpoint: str | None = Field(None, description="Folder of a released checkpoint in the transformers layout.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of the weights in memory.")
    pretrain: PretrainOptions | None = Field(None, description="2D pretraining of a model built here.")

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, content: object) -> object:
        """Fill in the default source and refuse two of them."""
        if not isinstance(content, dict):
            return content
        content = dict(content)
        if content.get("checkpoint") is None:
            content["size"] = content.get("size") or "tiny"
            content["pretrain"] = content.get("pretrain") or {}
        elif content.get("size") or content.get("pretrain"):
            raise ValueError("give either size (with pretrain) or checkpoint, not both")
        return content


class TransformersBackbone(Backbone):
    """A backbone member whose model is a `transformers` class."""

    options_model: ClassVar[type[Options]] = BackboneOptions
    chat: ClassVar[ChatFormat]
    releases: ClassVar[tuple[Release, ...]] = ()
    """Released checkpoints of the family that are known by name (pipeline.backbones._transformers.releases)."""
    options: BackboneOptions

    @abstractmethod
    def family(self) -> type[LoadedTransformersModel]:
        """Return the family's torch class (imported here, not at the top of the file)."""

    def tokens(self) -> tuple[int, int] | None:
        """Return the configured rows and columns of visual tokens per view; None: the family's own."""
        return None

    def pretrain_dataset(self) -> str | None:
        return self.options.pretrain.dataset if self.options.pretrain else None

    @property
    def checkpoint(self) -> Path | None:
        """Return the folder of the released checkpoint, None for a model built in the workflow."""
        return Path(self.options.checkpoint) if self.options.checkpoint else None

    def release(self) -> Release | None:
        """Return the release that the checkpoint folder is named after."""
        return release_of(self.checkpoint.name, self.releases) if self.checkpoint else None

    def licences(self) -> Licence:
        if self.checkpoint is None:
            return super().licences()
        release = self.release()
        code = "Apache-2.0 (this project and transformers)"
        if release is None:
            return Licence(code, f"not known here, that of the checkpoint in {self.checkpoint}", commercial=False)
        return Licence(code, f"{release.licence} ({release.name})", release.commercial)

    def weight_files(self) -> tuple[WeightFile, ...]:
        if self.checkpoint is None:
            return ()
        release, parts = self.release(), "config.json, tokenizer and all safetensors shards"
        if release is not None:
            return (WeightFile(self.checkpoint, parts, f"Hugging Face, {release.name}", release.bytes),)
        known = " or ".join(known.name for known in self.releases) or "a released checkpoint of the family"
        return (WeightFile(self.checkpoint, f"a checkpoint folder: {parts}", f"Hugging Face, for example {known}"),)

    def check_weights(self) -> None:
        if self.checkpoint is not None:
            from pipeline.backbones._transformers.released import check_released

            check_released(self.family(), self.checkpoint)

    def depth(self) -> int | None:
        if self.checkpoint is None:
            return TINY_LAYERS
        release = self.release()
        return layer_count(self.checkpoint, "text_config") or (release.size.layers if release else None)

    def size(self) -> ModelSize | None:
        if self.checkpoint is None:
            return None
        if self.checkpoint.is_dir():
            from pipeline.backbones._transformers.released import released_size

            try:
                return released_size(self.family(), self.checkpoint, self.tokens())
            except CheckpointError:  # check_weights says what is wrong; the published size is still the best guess
                pass
        release = self.release()
        return self._asked_tokens(release.size) if release else None

    def _asked_tokens(self, size: ModelSize) -> ModelSize:
        """Return the published size with the configured tokens per view instead of the release's own."""
        tokens = self.tokens()
        if tokens is None:
            return size
        count = tokens[0] * tokens[1]
        return replace(size, tokens=count, patches=size.patches * count // size.tokens)

    def train_tokenizer(self, texts: Iterable[str], folder: Path) -> None:
        """Train the tokenizer of a model built here and save it in ``folder``."""
        from pipeline.backbones._transformers.tokenizer import train_tokenizer

        vocabulary = self.options.pretrain.vocabulary if self.options.pretrain else 1000
        train_tokenizer(texts, self.chat, vocabulary=vocabulary).save_pretrained(folder)

    def build(self, tokenizer_folder: Path, *, seed: int, device: str) -> LoadedBackbone:
        from pipeline.backbones._transformers.models import build_model

        return build_model(self.family(), tokenizer_folder, seed=seed, device=device, tokens=self.tokens())

    def load(self, folder: Path, *, device: str) -> LoadedBackbone:
        from pipeline.backbones._transformers.models import load_model

        return load_model(self.family(), folder, device=device, dtype=self.options.dtype, tokens=self.tokens())
