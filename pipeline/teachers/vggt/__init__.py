"""VGGT (Wang et al., CVPR 2025, arXiv 2503.11651): the 3D foundation model of 3DRS.

``size: rooms`` is a small network of the same architecture, trained in the workflow on rooms of its own; ``size: 1b`` is the
released checkpoint, which you download yourself. Features are the last aggregator layer, frame and global part side by side,
without the camera and register tokens. With ``predictions`` the network's own depth, confidence and poses are cached too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.core.options import Options
from pipeline.core.releases import Licence, WeightFile
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.network import NetworkTeacher
from pipeline.teachers.vggt.config import RELEASED_1B, ROOMS
from pipeline.teachers.vggt.images import image_rule

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex
    from pipeline.teachers.vggt.config import VGGTConfig

TENSOR_BYTES_1B = 4 * 1_256_537_516
"""float32 parameters of the released file (key list of the reference's code); its header adds less than a megabyte."""


class PretrainOptions(Options):
    """Options: how the small network is trained. The defaults take about two CPU-minutes on one thread."""

    dataset: str = Field(description="Dataset (config key) whose scenes it learns from; share none with the study.")
    masked_steps: int = Field(200, ge=0, description="Steps of masked-image pretraining of the patch encoder.")
    masked_images: int = Field(32, ge=1, description="Images per masked step.")
    masked_share: float = Field(0.75, gt=0, lt=1, description="Share of patches that are hidden.")
    masked_learning_rate: float = Field(1.5e-3, gt=0, description="Peak learning rate of the masked stage.")
    steps: int = Field(520, ge=1, description="Steps on depth, points and cameras.")
    images: int = Field(12, ge=2, description="Images per step, as scenes of 2 to 6 views.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of the geometry stage.")
    seed: int = Field(0, ge=0, description="Seed of weights and batches.")


class VGGTOptions(Options):
    """Options: the weights, and the layers that are taken."""

    size: Literal["rooms", "1b"] = Field("1b", description="rooms: small, trained here; 1b: the released checkpoint.")
    checkpoint: str | None = Field(None, description="File of the released weights (model.pt or model.safetensors), size 1b.")
    images: Literal["crop", "pad"] = Field(
        "crop",
        description="crop: width 518, portraits lose rows (as 3DRS); pad: longer side 518, white up to a square, nothing lost "
        "(37 x 37 tokens). Both are modes of VGGT's own loader; pad is for size 1b.",
    )
    layers: tuple[int, ...] = Field((-1,), min_length=1, description="Aggregator layers, concatenated; -1 is the last.")
    feature_layer: Literal["aggregated", "aggregated+encoder"] = Field(
        "aggregated", description="Aggregator layers alone, or with the patch encoder's tokens beside them (appearance)."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Arithmetic of matrix products (autocast); the paper's features were made in bfloat16."
    )
    predictions: bool = Field(
        False,
        description="Cache also the depth head's depth and confidence, averaged to the token grid, and the camera head's poses "
        "in the first view's frame. Confidence is the mean of 1 - 1/c, c >= 1 being the head's, and weighs the loss.",
    )
    pretrain: PretrainOptions | None = Field(None, description="How the network is trained, size rooms.")

    @model_validator(mode="after")
    def _weights_come_from_one_place(self) -> VGGTOptions:
        if self.size == "rooms" and (self.pretrain is None or self.checkpoint is not None):
            raise ValueError("size rooms is trained here: give pretrain: {dataset: ...} and no checkpoint")
        if self.size == "1b" and (self.checkpoint is None or self.pretrain is not None):
            raise ValueError("size 1b is a released checkpoint: give checkpoint: PATH and no pretrain")
        if self.size == "rooms" and self.images == "pad":
            raise ValueError("size rooms is trained on images that are not padded: images: crop")
        return self

    @model_validator(mode="after")
    def _layers_exist_once(self) -> VGGTOptions:
        depth = _config_of(self.size).depth
        wrong = [layer for layer in self.layers if not -depth <= layer < depth]
        if wrong:
            raise ValueError(f"the aggregator of size {self.size} has no layer {wrong[0]}: -{depth} to {depth - 1}")
        if len({layer % depth for layer in self.layers}) < len(self.layers):
            raise ValueError(f"layers {list(self.layers)} name a layer twice ({depth} layers, so {depth - 1} is -1)")
        return self


def _config_of(size: str) -> VGGTConfig:
    return ROOMS if size == "rooms" else RELEASED_1B


class VGGTTeacher(NetworkTeacher):
    """Depends on the order of views: the first one is the reference."""

    options_model = VGGTOptions
    example: ClassVar[Mapping[str, Any]] = {
        "size": "rooms",
        "feature_layer": "aggregated+encoder",
        "predictions": True,
        "pretrain": {"dataset": "rooms", "masked_steps": 2, "masked_images": 2, "steps": 2, "images": 2},
    }
    order_dependent = True
    set_dependent = True
    options: VGGTOptions

    @property
    def _config(self) -> VGGTConfig:
        return replace(_config_of(self.options.size), images=self.options.images)

    @property
    def _fix(self) -> str:
        return f"download model.pt of facebook/VGGT-1B and name it in config.yaml: teachers.{self.name}.checkpoint"

    @property
    def _with_encoder(self) -> bool:
        return self.options.feature_layer == "aggregated+encoder"

    @property
    def dim(self) -> int:
        return len(self.options.layers) * self._config.dim + self._with_encoder * self._config.width

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return image_rule(height_px, width_px, self._config).grid

    def feature_layer(self) -> str:
        predictions = ", with depth, confidence and poses" if self.options.predictions else ""
        return f"{self.options.feature_layer}, layers {list(self.options.layers)}, {self.options.precision}{predictions}"

    def layers(self) -> dict[str, int]:
        found = {f"layer{layer % self._config.depth}": self._config.dim for layer in self.options.layers}
        return found | ({"encoder": self._config.width} if self._with_encoder else {})

    def licences(self) -> Licence:
        if self.options.size == "rooms":
            return super().licences()
        return Licence(
            code="Apache-2.0 (this project's own implementation)",
            weights="CC BY-NC 4.0 (facebook/VGGT-1B); a file of facebook/VGGT-1B-Commercial has its own licence, commercial "
            "use allowed but for military purposes",
            commercial=False,
        )

    def weight_files(self) -> tuple[WeightFile, ...]:
        if self.options.checkpoint is None:
            return ()
        return (
            WeightFile(
                Path(self.options.checkpoint),
                "VGGT-1B with all heads (model.pt or model.safetensors)",
                "model repository facebook/VGGT-1B on the Hugging Face hub",
                TENSOR_BYTES_1B,
            ),
        )

    def check_weights(self) -> None:
        if self.options.checkpoint is not None:
            from pipeline.teachers.vggt.features import check_file

            check_file(Path(self.options.checkpoint), self._config, self._fix)

    def pretrain_dataset(self) -> str | None:
        return self.options.pretrain.dataset if self.options.pretrain else None

    def pretrain(self, index: SceneIndex, folder: Path, *, device: str) -> dict[str, float]:
        from pipeline.teachers.vggt.pretrain import Plan, pretrain

        assert self.options.pretrain is not None
        plan = Plan(**self.options.pretrain.model_dump(exclude={"dataset"}))
        return pretrain(index, folder, self._config, plan, device)

    def load(self, weights: Path | None, device: str) -> str:
        from pipeline.teachers.vggt.features import load_features

        if self.trained_in_workflow:
            assert weights is not None
            path, fix = weights / "model.safetensors", f"snakemake --cores all -f {weights / 'manifest.json'}"
        else:
            path, fix = Path(str(self.options.checkpoint)), self._fix
        options = self.options
        self.network, value = load_features(
            path,
            self._config,
            options.layers,
            encoder=self._with_encoder,
            device=device,
            bfloat16=options.precision == "bfloat16",
            fix=fix,
            predictions=options.predictions,
        )
        return value
