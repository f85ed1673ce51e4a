"""An external model as a source of token features: views in, what its tap gives out, checked against what was said about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.nets.external.model import called, tapped_module
from pipeline.nets.external.predictions import as_stored, checked, with_predictions
from pipeline.nets.external.spec import ExternalSpec, resolve, users_code
from pipeline.nets.views import PreparedViews, ViewInput, begin_copy
from pipeline.scene import Scene
from pipeline.teachers.base import TeacherFeatures


class ExternalFeatures:
    """A model on a device. Every fault of its answer is a ConfigError that names the option which would mend it."""

    def __init__(self, model: nn.Module, spec: ExternalSpec, view_input: ViewInput, *, bfloat16: bool, views_per_pass: int):
        self.spec, self.input, self.bfloat16 = spec, view_input, bfloat16
        self.views_per_pass = views_per_pass
        self.model = model.to(view_input.device).eval().requires_grad_(False)
        self._call = called(spec, self.model)
        self._seen: list[Any] = []
        """The tap's last output in the call that runs, or nothing."""
        module = tapped_module(spec, self.model)
        if module is not None:
            module.register_forward_hook(self._keep)
        by_function = spec.tap is not None and ":" in spec.tap
        self._function = resolve(str(spec.tap), where=spec.where("tap")) if by_function else None

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._seen = [output]

    def prepare(self, scene: Scene) -> PreparedViews:
        """Resize all views."""
        return self.input.prepare(scene.rgb)

    @torch.inference_mode()
    def start(self, prepared: PreparedViews) -> Callable[[], TeacherFeatures]:
        """Queue the work of a scene; the returned function waits for the features of all views, in order."""
        size = (prepared.grid.rows, prepared.grid.cols)
        pixels = self.input.to_device(prepared)
        parts = pixels.split(self.views_per_pass) if self.spec.views == "separately" else (pixels,)
        passes = [self._encoded(part, size) for part in parts]
        ready = {name: begin_copy(torch.cat([one[name] for one in passes])) for name in passes[0]}

        def features() -> TeacherFeatures:
            found = {name: array() for name, array in ready.items()}
            tokens, maps = found.pop("tokens"), checked(found, self.spec)
            return TeacherFeatures(tokens, prepared.grid, maps.get("confidence"), maps.get("depth"), maps.get("pose"))

        return features

    def _encoded(self, pixels: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """Pixels (v,3,h,w) -> ``tokens`` float32 (v,G,K,D) and what the model predicts beside them, on the same grid."""
        images = pixels[None] if self.spec.views == "together" else pixels
        try:
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bfloat16):
                answer = self._answer(images)
        finally:
            self._seen.clear()  # also when memory runs out: what is kept would be missing in the next try
        answer, predicted = with_predictions(answer, self.spec)
        tokens = as_grid(pick(answer, self.spec), self.spec, len(pixels), size).float()
        return {"tokens": tokens} | as_stored(predicted, self.spec, len(pixels), size)

    def _answer(self, images: Tensor) -> Any:
        """What the tap gives for images (1,V,3,h,w) or (v,3,h,w)."""
        spec = self.spec
        mend = "check views, images_argument, patch_px and the resize rule; try the model alone on images of this shape"
        with users_code(f"the model on images of shape {tuple(images.shape)}", where=spec.where("call"), mend=mend):
            if self._function is not None:
                return self._function(self.model, images)
            returned = self._call(images) if spec.images_argument is None else self._call(**{spec.images_argument: images})
        if spec.tap is None:
            return returned
        if not self._seen:
            raise ConfigError(
                f"the call does not run the module {spec.tap!r}",
                where=spec.where("tap"),
                mend=f"mend tap or {spec.where('call')}",
            )
        return self._seen.pop()


def pick(answer: Any, spec: ExternalSpec) -> Tensor:
    """The tensor at ``output`` in nested tuples, lists, mappings and attributes."""
    found = answer
    for step, key in enumerate(spec.output):
        inside, known = _inside(found, key)
        if not known:
            path = "".join(f"[{k!r}]" for k in spec.output[:step])
            raise ConfigError(
                f"the tap's output{path} has no {key!r}", where=spec.where("output"), allowed=f"{describe(found)}"
            )
        found = inside
    if not isinstance(found, Tensor):
        raise ConfigError(
            f"the tap gives {describe(found)}, not a tensor",
            where=spec.where("output"),
            allowed="a path of indices and keys that ends at a tensor, such as [0, -1] or [x_norm_patchtokens]",
        )
    return found


def _inside(value: Any, key: int | str) -> tuple[Any, bool]:
    """``value``'s part at a key, and whether there is one."""
    if isinstance(value, Mapping):
        return value.get(key), key in value
    if isinstance(value, tuple | list) and isinstance(key, int):
        there = -len(value) <= key < len(value)
        return value[key] if there else None, there
    return getattr(value, str(key), None), isinstance(key, str) and hasattr(value, key)


def describe(value: Any) -> str:
    """A value's type and what can be picked from it."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(repr(key) for key in list(value)[:12])}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {', '.join(type(part).__name__ for part in value[:6])}"
    return f"a {type(value).__name__}"


def as_grid(tokens: Tensor, spec: ExternalSpec, views: int, size: tuple[int, int]) -> Tensor:
    """Tokens as (v,G,K,D), special tokens dropped. ConfigError when width, token count or view count is not as said."""
    rows, cols = size
    shape, lead = tuple(tokens.shape), spec.lead_tokens
    axes = 2 if spec.output_layout == "tokens" else 3
    if len(shape) < axes:
        raise ConfigError(
            f"the tap gives {shape}: too few axes for {spec.output_layout}",
            where=spec.where("output_layout"),
            allowed="tokens (..., tokens, dim), channels_last (..., rows, cols, dim), channels_first (..., dim, rows, cols)",
        )
    inner = tokens.movedim(-3, -1) if spec.output_layout == "channels_first" else tokens
    if axes == 2 and views > 1 and inner.shape[-2] == views * (lead + rows * cols):
        inner = inner.unflatten(-2, (views, -1))  # one view's tokens after the other's
    if inner.shape[-1] != spec.dim:
        raise ConfigError(
            f"the tap gives {shape}: {inner.shape[-1]} channels, not {spec.dim}",
            where=spec.where("dim"),
            mend=f"dim: {inner.shape[-1]} if that is the tap you want, else mend tap, output or output_layout",
        )
    if axes == 2:
        _check_count(shape, inner.shape[-2], spec, size)
        inner = inner[..., lead:, :].unflatten(-2, size)
    elif tuple(inner.shape[-3:-1]) != size:
        raise ConfigError(
            f"the tap gives {shape}: a map of {tuple(inner.shape[-3:-1])}, not {rows} x {cols} as the resize rule says",
            where=spec.where("patch_px"),
            mend="mend patch_px, resize, size or output_layout",
        )
    flat = inner.flatten(0, -4) if inner.dim() > 3 else inner[None]
    if len(flat) != views:
        raise ConfigError(
            f"the tap gives {shape}: features of {len(flat)} views, not of {views}",
            where=spec.where("views"),
            allowed="one set of tokens per view, in the order of the images",
        )
    return flat


def _check_count(shape: tuple[int, ...], count: int, spec: ExternalSpec, size: tuple[int, int]) -> None:
    patches = size[0] * size[1]
    if count == spec.lead_tokens + patches:
        return
    extra = count - patches
    fits = f"lead_tokens: {extra} if these {extra} come first" if extra >= 0 else "mend patch_px, resize or size"
    raise ConfigError(
        f"the tap gives {shape}: {count} tokens per view, not {spec.lead_tokens} + {size[0]} x {size[1]} patches",
        where=spec.where("lead_tokens"),
        allowed=f"{spec.lead_tokens + patches} tokens",
        mend=fits,
    )
