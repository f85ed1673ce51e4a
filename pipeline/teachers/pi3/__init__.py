"""Pi3 (Wang et al., arXiv 2507.13347) and its successor Pi3X: 3D foundation models without a reference view.

Features are the outputs of the decoder's last two blocks side by side (within views 1024, across views 1024), without the five
register tokens. Permuting the views permutes the features and changes nothing else (``order_dependent`` is False), but every
view attends to all views of its scene, so a view's features depend on the set of views (``set_dependent`` is True): all views
of a scene go through one pass, and the same view in another selection of frames has other features.

Pi3X is used with images alone; given depth, rays or poses it could take too are not passed. Then it computes the same encoder
and decoder with other weights, other heads, and predicts a scale in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.core.options import Options
from pipeline.core.releases import Licence, WeightFile
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.network import NetworkTeacher
from pipeline.teachers.pi3.config import RELEASED, TINY

if TYPE_CHECKING:
    from pipeline.teachers.pi3.config import Pi3Config

REPOSITORIES = {"pi3": ("yyfz233/Pi3", 4 * 958_696_738), "pi3x": ("yyfz233/Pi3X", 4 * 1_360_032_439)}
"""Where the released weights are, and the bytes of their numbers in float32 (key lists of the authors' code)."""


class Pi3Options(Options):
    """Options: the weights, and the layers that are taken."""

    size: Literal["released", "tiny_untrained"] = Field(
        "released",
        description="released: a checkpoint that you download; tiny_untrained: random weights, for trying out the workflow.",
    )
    variant: Literal["pi3", "pi3x"] = Field("pi3", description="Network: Pi3, or its successor Pi3X with images alone.")
    checkpoint: str | None = Field(None, description="File of the released weights (model.safetensors), size released.")
    layers: tuple[int, ...] = Field(
        (-1,),
        min_length=1,
        description="Pairs of decoder blocks (within views, across views), concatenated; 18 pairs, -1 is the last two blocks.",
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Arithmetic of matrix products (autocast).")
    predictions: bool = Field(
        False,
        description="Cache also depth (pi3x: in metres as it believes) and confidence, averaged to the token grid, and camera "
        "poses in the first view's frame. Confidence is the mean of the logistic of the network's logits.",
    )

    @model_validator(mode="after")
    def _weights_and_layers_exist(self) -> Pi3Options:
        if (self.size == "released") != (self.checkpoint is not None):
            raise ValueError("size released needs checkpoint: PATH of the released weights; size tiny_untrained takes none")
        count = _config(self.size).layers
        wrong = [layer for layer in self.layers if not -count <= layer < count]
        if wrong:
            raise ValueError(f"layers: there is no layer {wrong[0]} (allowed: {-count} to {count - 1})")
        if len({layer % count for layer in self.layers}) < len(self.layers):
            raise ValueError("layers: every layer once")
        return self


class Pi3Teacher(NetworkTeacher):
    """The order of views does not matter, their selection does."""

    options_model = Pi3Options
    example: ClassVar[Mapping[str, Any]] = {"size": "tiny_untrained", "predictions": True}
    order_dependent = False
    set_dependent = True
    options: Pi3Options

    @property
    def dim(self) -> int:
        return len(self.options.layers) * _config(self.options.size).dim

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        from pipeline.teachers.pi3.images import token_grid

        return token_grid(height_px, width_px, _config(self.options.size))

    def feature_layer(self) -> str:
        more = ", depth, confidence and pose" if self.options.predictions else ""
        return f"{self.options.variant}, pairs of decoder blocks {list(self.options.layers)}, {self.options.precision}{more}"

    def layers(self) -> dict[str, int]:
        config = _config(self.options.size)
        return {f"layer{layer % config.layers}": config.dim for layer in self.options.layers}

    def licences(self) -> Licence:
        if self.options.size == "tiny_untrained":
            return super().licences()
        code = "Apache-2.0 (this project; the authors' own code, not used here, is BSD-3-Clause)"
        return Licence(code=code, weights=f"CC BY-NC 4.0 ({self._repository[0]})", commercial=False)

    def weight_files(self) -> tuple[WeightFile, ...]:
        if self.options.checkpoint is None:
            return ()
        name, size = self._repository
        what = f"{name} with all heads (model.safetensors)"
        return (WeightFile(Path(self.options.checkpoint), what, f"model repository {name} on the Hugging Face hub", size),)

    def check_weights(self) -> None:
        from pipeline.teachers.pi3.features import check_released

        if self.options.checkpoint is not None:
            check_released(Path(self.options.checkpoint), self.options.variant, fix=self._fix)

    def load(self, weights: Path | None, device: str) -> str:
        from pipeline.teachers.pi3.features import load_features, tiny_features

        options = self.options
        layers, bfloat16 = options.layers, options.precision == "bfloat16"
        if options.checkpoint is None:
            self.network, value = tiny_features(
                options.variant, layers, predictions=options.predictions, device=device, bfloat16=bfloat16
            )
            return value
        self.network, value = load_features(
            Path(options.checkpoint),
            options.variant,
            layers,
            predictions=options.predictions,
            device=device,
            bfloat16=bfloat16,
            fix=self._fix,
        )
        return value

    @property
    def _repository(self) -> tuple[str, int]:
        return REPOSITORIES[self.options.variant]

    @property
    def _fix(self) -> str:
        return (
            f"download model.safetensors of {self._repository[0]} and name it in config.yaml: teachers.{self.name}.checkpoint"
        )


def _config(size: Literal["released", "tiny_untrained"]) -> Pi3Config:
    return RELEASED if size == "released" else TINY
