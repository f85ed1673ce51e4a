"""FLARE (Zhang et al., CVPR 2025, arXiv 2502.12138): the other 3D foundation model of 3DRS.

``size: released`` is the geometry and pose model, whose checkpoint you download yourself; ``size: tiny_untrained`` is a small
network of the same architecture with random weights, for tests and dry runs. Feature layers:

    enc_norm         1024  the image encoder: every view by itself
    dec_norm_fine     768  geometry in each camera's own frame, all views together
    dec_norm_point    768  geometry in the frame of the first view, all views together

Which of them 3DRS stored is not known (its extractor calls a function that was never released); its loss accepts 24 x 32
tokens, which all three have on 4:3 images. Cameras that the network predicts on its way are not given: their convention is not
part of the specification this follows, in an earlier version their scale was not that of its points (its authors in FLARE's
issue 7), and they are not reproducible across machines (see nets/flare/pose.py). Depth needs heads that are not built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.core.options import Options
from pipeline.core.releases import Licence, WeightFile
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.flare.config import RELEASED, TINY, FeatureLayer, FLAREConfig
from pipeline.teachers.network import NetworkTeacher

TENSOR_BYTES = 4 * 1_403_248_983
"""float32 parameters of the released configuration as upstream's code builds it, heads included; those with two names count
once, as torch stores them. Upstream loads the file whether or not all names fit, so it may differ a bit."""


class FlareOptions(Options):
    """Options: the weights, and the layers that are taken."""

    size: Literal["released", "tiny_untrained"] = Field(
        "released", description="released: the geometry and pose model; tiny_untrained: small, with random weights."
    )
    checkpoint: str | None = Field(
        None, description="File of the released weights (geometry_pose.pth, or its entries as .safetensors)."
    )
    feature_layer: FeatureLayer | tuple[FeatureLayer, ...] = Field(
        ("dec_norm_point",),
        description="Tokens taken: enc_norm (1024 channels), dec_norm_fine, dec_norm_point (768); several stand side by side.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Arithmetic of matrix products (autocast; upstream bfloat16). Cameras are float32 always."
    )
    seed: int = Field(0, ge=0, description="Seed of the random weights, size tiny_untrained.")

    @field_validator("feature_layer")
    @classmethod
    def _always_several(cls, feature_layer: FeatureLayer | tuple[FeatureLayer, ...]) -> tuple[FeatureLayer, ...]:
        # One feature_layer is the same with and without a list: the same options, the same digest.
        return (feature_layer,) if isinstance(feature_layer, str) else feature_layer

    @model_validator(mode="after")
    def _weights_come_from_one_place(self) -> FlareOptions:
        if (self.size == "released") != (self.checkpoint is not None):
            raise ValueError("size released needs checkpoint: PATH, size tiny_untrained has none")
        if self.size == "released" and self.seed:
            raise ValueError("a seed belongs to size tiny_untrained")
        if not self.feature_layers or len(set(self.feature_layers)) != len(self.feature_layers):
            raise ValueError("name at least one feature_layer, and none twice")
        return self

    @property
    def feature_layers(self) -> tuple[FeatureLayer, ...]:
        """Return the wanted feature layers, in order."""
        return (self.feature_layer,) if isinstance(self.feature_layer, str) else self.feature_layer


class FlareTeacher(NetworkTeacher):
    """Depends on the order of views (the first is the reference) and on their set, unless only the encoder is tapped."""

    options_model = FlareOptions
    example: ClassVar[Mapping[str, Any]] = {
        "size": "tiny_untrained",
        "feature_layer": ["enc_norm", "dec_norm_fine", "dec_norm_point"],
    }
    options: FlareOptions

    def __init__(self, name: str, options: FlareOptions):
        super().__init__(name, options)
        self.order_dependent = self.set_dependent = options.feature_layers != ("enc_norm",)

    @property
    def _config(self) -> FLAREConfig:
        return RELEASED if self.options.size == "released" else TINY

    @property
    def _path(self) -> Path:
        return Path(str(self.options.checkpoint))

    @property
    def _fix(self) -> str:
        return f"download geometry_pose.pth of AntResearch/FLARE and name it in config.yaml: teachers.{self.name}.checkpoint"

    @property
    def dim(self) -> int:
        return sum(self.layers().values())

    def layers(self) -> dict[str, int]:
        return {feature_layer: self._config.feature_layer_width(feature_layer) for feature_layer in self.options.feature_layers}

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        from pipeline.teachers.flare.images import image_rule

        return image_rule(height_px, width_px, self._config).grid

    def feature_layer(self) -> str:
        size = "" if self.options.size == "released" else f", {self.options.size}, seed {self.options.seed}"
        return f"{', '.join(self.options.feature_layers)}, {self.options.precision}{size}"

    def licences(self) -> Licence:
        if self.options.size == "tiny_untrained":
            return super().licences()
        code = "Apache-2.0 (this project's own implementation; upstream's code, CC BY-NC-SA 4.0, is not part of it)"
        return Licence(code=code, weights="CC BY-NC-SA 4.0 (AntResearch/FLARE)", commercial=False)

    def weight_files(self) -> tuple[WeightFile, ...]:
        if self.options.size == "tiny_untrained":
            return ()
        source = "model repository AntResearch/FLARE on the Hugging Face hub"
        return (WeightFile(self._path, "FLARE, geometry and pose model (geometry_pose.pth)", source, TENSOR_BYTES),)

    def check_weights(self) -> None:
        from pipeline.teachers.flare.weights import check_checkpoint

        if self.options.size == "released":
            check_checkpoint(self._path, self._config, fix=self._fix)

    def load(self, weights: Path | None, device: str) -> str:
        from pipeline.teachers.flare.features import released_features, untrained_features

        options, bfloat16 = self.options, self.options.precision == "bfloat16"
        if options.size == "released":
            self.network, value = released_features(
                self._path, self._config, options.feature_layers, device=device, bfloat16=bfloat16, fix=self._fix
            )
        else:
            self.network, value = untrained_features(
                self._config, options.feature_layers, options.seed, device=device, bfloat16=bfloat16
            )
        return value

    def memory_advice(self) -> str:
        advice = [option for option in (super().memory_advice(),) if option]
        if "dec_norm_point" in self.options.feature_layers:
            advice.append(f"teachers.{self.name}: feature_layer: dec_norm_fine (other features, about half of the work)")
        return "; or ".join(advice)
