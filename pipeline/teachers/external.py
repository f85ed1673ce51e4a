"""Any network that is installed beside this project: MapAnything, Depth Anything 3, VGGT-Omega, CUT3R, your own.

You say how it is made (import path, arguments, weights), how it is called, which output is taken and what its tokens look at.
docs/external_teacher.md has a worked example. All views see the whole image; only the aspect ratio may change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.grid import TokenGrid
from pipeline.options import Options
from pipeline.teachers._network import NetworkTeacher
from pipeline.teachers.base import Licence, WeightFile

if TYPE_CHECKING:
    from pipeline.nets.external.spec import ExternalSpec
    from pipeline.nets.resize import InputRule

_MODULE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_OBJECT = re.compile(rf"{_MODULE}:{_MODULE}")


class LicenceOptions(Options):
    """Nothing is known about the model, so its user says what may be done with it."""

    code: str = Field(min_length=1, description="Licence of the package's code.")
    weights: str = Field(min_length=1, description="Licence of the weights.")
    commercial: bool = Field(description="Whether features may be used commercially.")


class ExternalOptions(Options):
    """How the model is made, called and read."""

    factory: str = Field(description="Class or function that makes the model: package.module:name.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the factory.")
    weights: str | None = Field(None, description="File of weights (.safetensors, or .pt/.pth holding tensors only).")
    weights_key: str | None = Field(None, description="Key of the state dict inside a .pt file that holds more.")
    weights_prefix: str = Field("", description="Only entries that start with this are read, without it.")
    weights_match: Literal["exact", "superset", "partial"] = Field(
        "exact",
        description="exact: all entries of model and file are the same; superset: the file may hold more; partial: the model "
        "may, too, and keeps what its factory made (random weights, unless the factory loads some).",
    )
    source: str = Field("", description="Where the weights come from; shown when they are missing.")
    call: str | None = Field(None, description="Submodule or method to call with the images. Default: the model itself.")
    images_argument: str | None = Field(None, description="Name of the images' keyword. Default: the first argument.")
    views: Literal["together", "together_flat", "separately"] = Field(
        "together",
        description="together: all views of a scene in one call, (1,V,3,H,W); together_flat: in one call, (V,3,H,W); "
        "separately: views do not see each other, (v,3,H,W) in passes.",
    )
    views_per_pass: int = Field(16, ge=1, description="Views per call when they are encoded separately.")
    order_dependent: bool | None = Field(
        None, description="Whether features depend on the order of views. Default: yes for views together, no for separately."
    )
    set_dependent: bool | None = Field(
        None, description="Whether features depend on the other views. Default: yes for views together, no for separately."
    )
    tap: str | None = Field(
        None,
        description="What is read: a module path (its last output in the call), or a function package.module:name(model, "
        "images) that returns it, or tokens, depth, confidence and pose by name. Default: what the call returns.",
    )
    output: tuple[int | str, ...] = Field((), description="Indices and keys that lead to the tensor, e.g. [0, -1].")
    output_layout: Literal["tokens", "channels_last", "channels_first"] = Field(
        "tokens", description="The tensor's last axes: (tokens, dim), (rows, cols, dim) or (dim, rows, cols)."
    )
    lead_tokens: int = Field(0, ge=0, description="Special tokens before the patches of a view; dropped.")
    dim: int = Field(ge=1, description="Channels of a token.")
    patch_px: int = Field(ge=1, description="Side of the square of input pixels that one token stands for.")
    multiple_px: int | None = Field(None, ge=1, description="Input sides are multiples of this. Default: patch_px.")
    resize: Literal["width", "long_side", "area", "squash"] = Field(
        "long_side", description="What of the input size is fixed; the aspect ratio is kept but for rounding, or squashed."
    )
    size: int = Field(ge=1, description="Pixels of the width, of the longer side or of both sides; of the whole area for area.")
    rounding: Literal["nearest", "down"] = Field("nearest", description="How sides become multiples.")
    resampling: Literal["bicubic", "bilinear", "lanczos"] = Field("bicubic", description="Pillow's filter.")
    normalisation: Literal["identity", "imagenet", "half"] = Field(
        description="Of values in [0,1]: identity (VGGT, Pi3, MoGe), imagenet mean and deviation (MapAnything, Depth Anything "
        "3), half: to [-1,1] (DUSt3R, MASt3R)."
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Arithmetic of matrix products (autocast).")
    licence: LicenceOptions = Field(description="What may be done with the features; you must look it up.")

    @model_validator(mode="after")
    def _options_fit_together(self) -> ExternalOptions:
        for key, name in (("factory", self.factory), ("tap", self.tap or "")):
            if (key == "factory" or ":" in name) and not _OBJECT.fullmatch(name):
                raise ValueError(f"{key} {name!r} is not of the form package.module:name")
        if (self.multiple_px or self.patch_px) % self.patch_px:
            raise ValueError(f"multiple_px {self.multiple_px} is not a multiple of patch_px {self.patch_px}")
        if self.views == "separately" and (self.order_dependent or self.set_dependent):
            raise ValueError("views that are encoded separately cannot depend on each other")
        if self.order_dependent and self.set_dependent is False:
            raise ValueError("features that depend on the order of views depend on the views: set_dependent cannot be false")
        if self.output_layout != "tokens" and self.lead_tokens:
            raise ValueError("a map has no special tokens: lead_tokens belongs to output_layout tokens")
        if self.weights is None and (self.weights_prefix or self.weights_key or self.weights_match != "exact"):
            raise ValueError("weights_key, weights_prefix and weights_match belong to a weights file")
        return self


class ExternalTeacher(NetworkTeacher):
    """A model of another package. Dependence on the views is as its user says (by default assumed when they go together)."""

    options_model = ExternalOptions
    code = ("nets.external", "nets.resize", "nets.views", "nets.weights")
    example: ClassVar[Mapping[str, Any]] = {
        "factory": "pipeline.nets.vision2d.tiny:tiny_network",
        "arguments": {"model_type": "dinov2_with_registers"},
        "views": "separately",
        "tap": "encoder.layer.1",
        "lead_tokens": 5,
        "dim": 32,
        "patch_px": 14,
        "size": 112,
        "normalisation": "imagenet",
        "licence": {"code": "Apache-2.0", "weights": "none (random)", "commercial": True},
    }
    licence = "as its user states it (teachers.<name>.licence)"
    options: ExternalOptions

    def __init__(self, name: str, options: ExternalOptions):
        super().__init__(name, options)
        together = options.views != "separately"
        self.set_dependent = together if options.set_dependent is None else options.set_dependent
        self.order_dependent = self.set_dependent if options.order_dependent is None else options.order_dependent

    @property
    def _spec(self) -> ExternalSpec:
        from pipeline.nets.external.spec import ExternalSpec

        fields = ExternalSpec.__dataclass_fields__
        chosen = {key: value for key, value in dict(self.options).items() if key in fields}
        weights = Path(self.options.weights) if self.options.weights else None
        return ExternalSpec(**chosen | {"teacher": self.name, "weights": weights})

    @property
    def _rule(self) -> InputRule:
        from pipeline.nets.resize import InputRule

        options = self.options
        multiple = options.multiple_px or options.patch_px
        return InputRule(options.resize, options.size, options.patch_px, multiple, options.rounding)

    @property
    def dim(self) -> int:
        return self.options.dim

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return self._rule.grid(height_px, width_px)

    def tap(self) -> str:
        output = "".join(f"[{key!r}]" for key in self.options.output)
        read = self.options.tap or self.options.call or "output"
        return f"{read}{output} of {self.options.factory}, {self.options.precision}"

    def licences(self) -> Licence:
        stated = self.options.licence
        return Licence(code=stated.code, weights=stated.weights, commercial=stated.commercial)

    def weight_files(self) -> tuple[WeightFile, ...]:
        if self.options.weights is None:
            return ()
        source = self.options.source or f"the package that {self.options.factory} is from"
        return (WeightFile(Path(self.options.weights), f"weights of {self.options.factory}", source),)

    def check_weights(self) -> None:
        from pipeline.nets.external.model import check_model

        check_model(self._spec)

    def load(self, weights: Path | None, device: str) -> str:
        from pipeline.nets.external.features import ExternalFeatures
        from pipeline.nets.external.model import load_model
        from pipeline.nets.resize import NORMALISATIONS
        from pipeline.nets.views import ViewInput

        options, spec = self.options, self._spec
        model, value = load_model(spec)
        view_input = ViewInput(self._rule, options.resampling, NORMALISATIONS[options.normalisation], device)
        bfloat16 = options.precision == "bfloat16"
        self._network = ExternalFeatures(model, spec, view_input, bfloat16=bfloat16, views_per_pass=options.views_per_pass)
        return value

    @property
    def _views_per_pass(self) -> int:
        return self.options.views_per_pass if self.options.views == "separately" else 1
