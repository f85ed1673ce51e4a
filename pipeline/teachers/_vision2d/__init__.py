"""Base of the 2D control teachers: a vision transformer from `transformers` that encodes every view separately.

A 2D teacher shows how much of a 3D teacher's gain comes from any good image features. Checkpoints are local folders in the
transformers layout (config.json, model.safetensors or pytorch_model.bin, optionally preprocessor_config.json); nothing is ever
downloaded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.core.hf_folder import checked_layers, layer_count
from pipeline.core.options import Options
from pipeline.core.releases import Licence, WeightFile
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers._common.resize import InputRule
from pipeline.teachers.network import NetworkTeacher

if TYPE_CHECKING:
    from pipeline.teachers._vision2d.checkpoint import Vision


class Vision2DOptions(Options):
    """Options: the weights, the pixels, and the layers that are taken from the network."""

    size: Literal["checkpoint", "tiny_untrained"] = Field(
        "checkpoint", description="checkpoint: the folder below; tiny_untrained: random weights, for trying out and tests only."
    )
    checkpoint: str | None = Field(None, description="Folder with config.json and weights, size checkpoint.")
    layers: tuple[int, ...] = Field((-1,), min_length=1, description="Block outputs, side by side; -1 is the last block.")
    norm: bool = Field(
        True, description="Apply the network's final LayerNorm to every layer (as the last hidden state has it)."
    )
    resize: Literal["long_side", "squash"] | None = Field(
        None,
        description="long_side: aspect ratio kept, sides rounded to whole patches; squash: to a square. Default: as the model "
        "is used (long_side for DINOv2, DINOv3 and SigLIP 2 NaFlex, squash for fixed SigLIP 2, CLIP and MAE).",
    )
    image_px: int | None = Field(
        None,
        ge=1,
        description="Pixels of the longer side, or of both. Default: image_size of config.json; 512 for DINOv3, NaFlex.",
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Arithmetic of matrix products (autocast).")
    views_per_pass: int = Field(16, ge=1, description="Views in one forward pass; views do not influence each other.")
    seed: int = Field(0, ge=0, description="Seed of the random weights, size tiny_untrained.")

    @model_validator(mode="after")
    def _weights_come_from_one_place(self) -> Vision2DOptions:
        if (self.size == "checkpoint") != (self.checkpoint is not None):
            raise ValueError("give checkpoint: FOLDER (size checkpoint), or size: tiny_untrained and no checkpoint")
        return self


class Vision2DTeacher(NetworkTeacher):
    """A frozen 2D network. Members name their architectures and their licence."""

    options_model = Vision2DOptions
    example: ClassVar[Mapping[str, Any]] = {"size": "tiny_untrained"}
    released: ClassVar[Licence]
    """Licence of the code and of the official weights."""
    official: ClassVar[str]
    """An official checkpoint, as named on the Hugging Face hub."""
    options: Vision2DOptions

    @abstractmethod
    def model_types(self) -> Sequence[str]:
        """Return the config.json names of the architectures that these options allow; the first one is built when untrained."""

    @property
    def _fix(self) -> str:
        return (
            f"download {self.official} (config.json, preprocessor_config.json and model*.safetensors, else pytorch_model*.bin) "
            f"and name the folder in config.yaml: teachers.{self.name}.checkpoint"
        )

    @property
    def _folder(self) -> Path:
        return Path(str(self.options.checkpoint))

    @cached_property
    def _vision(self) -> Vision:
        from pipeline.teachers._vision2d.checkpoint import read_vision
        from pipeline.teachers._vision2d.tiny import tiny_vision

        if self.options.size == "tiny_untrained":
            return tiny_vision(self.model_types()[0])
        return read_vision(self._folder, self.model_types(), fix=self._fix)

    @property
    def _rule(self) -> InputRule:
        vision = self._vision
        sizing = self.options.resize or vision.layout.sizing
        own = vision.layout.tiny_px if self.options.size == "tiny_untrained" else vision.size_px
        # A square is rounded down: 384 pixels with patches of 14 are 27 x 27 patches, the network's own position table.
        rounding: Literal["nearest", "down"] = "down" if sizing == "squash" else "nearest"
        return InputRule(sizing, self.options.image_px or own, vision.patch, vision.patch, rounding)

    @property
    def dim(self) -> int:
        return len(self.options.layers) * self._vision.width

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return self._rule.grid(height_px, width_px)

    def feature_layer(self) -> str:
        norm = "with" if self.options.norm else "without"
        return f"blocks {list(self.options.layers)}, {norm} final norm, {self.options.precision}"

    def layers(self) -> dict[str, int]:
        return {f"layer{layer % self._vision.depth}": self._vision.width for layer in self.options.layers}

    def layer_names(self) -> tuple[str, ...] | None:
        depth = self._known_depth()
        return None if depth is None else tuple(f"layer{layer % depth}" for layer in self.options.layers)

    def check_options(self) -> None:
        depth = self._known_depth()
        if depth is not None:
            checked_layers(self.options.layers, depth)

    def _known_depth(self) -> int | None:
        """Return the network's number of blocks where it is known before anything is downloaded, else None."""
        if self.options.size == "tiny_untrained":
            return self._vision.depth
        return layer_count(self._folder, "vision_config")

    def licences(self) -> Licence:
        if self.options.size == "tiny_untrained":
            return Licence(code=self.released.code, weights="none (random)", commercial=True)
        return self.released

    def weight_files(self) -> tuple[WeightFile, ...]:
        if self.options.size == "tiny_untrained":
            return ()
        what = f"folder of {self.official} or another checkpoint of its architecture: config.json and weights"
        return (WeightFile(self._folder, what, f"{self.official} on the Hugging Face hub"),)

    def check_weights(self) -> None:
        from pipeline.teachers._vision2d.checkpoint import check_network

        checked_layers(self.options.layers, self._vision.depth)
        if self.options.size == "checkpoint":
            check_network(self._vision, self._folder, fix=self._fix)

    def load(self, weights: Path | None, device: str) -> str:
        from pipeline.core.weights import state_digest
        from pipeline.teachers._vision2d.checkpoint import load_network
        from pipeline.teachers._vision2d.features import VisionFeatures
        from pipeline.teachers._vision2d.tiny import tiny_network

        options, vision = self.options, self._vision
        if options.size == "tiny_untrained":
            model = tiny_network(vision.layout.model_type, options.seed)
            value = state_digest(model.state_dict())
        else:
            model, value = load_network(vision, self._folder, fix=self._fix)
        self.network = VisionFeatures(
            model,
            vision,
            self._rule,
            options.layers,
            norm=options.norm,
            device=device,
            bfloat16=options.precision == "bfloat16",
            views_per_pass=options.views_per_pass,
        )
        return value
