"""Vision networks from a local folder in the transformers layout (config.json, weights): no download, no remote code.

Names and shapes are checked with the library's own renaming of old checkpoints, on the real tensors when loading and on
stand-ins without memory when only the headers are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers.utils import logging

from pipeline.core.errors import CheckpointError
from pipeline.core.hf_folder import read_json, weight_paths
from pipeline.core.provenance import digest, file_digest
from pipeline.core.weights import entry_shapes, other_weights, read_shapes, read_weights
from pipeline.teachers._common.resize import FILTERS, Channels, Filter
from pipeline.teachers._vision2d.layouts import LAYOUTS, Layout

_FILES = ("model.safetensors", "pytorch_model.bin")
"""Weights: safetensors, else the pickled tensors of older checkpoints (some official folders have no others)."""
_KEYS = ("image_mean", "image_std")
"""Of preprocessor_config.json, in the order of ``Layout.pixels``."""


@dataclass(frozen=True)
class Vision:
    """A layout with the configuration of one network. ``pixels`` and ``resampling`` are the checkpoint's if it states them."""

    layout: Layout
    config: Any
    pixels: tuple[Channels, Channels]
    resampling: Filter

    @property
    def width(self) -> int:
        return int(self.config.hidden_size)

    @property
    def depth(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def lead(self) -> int:
        return self.layout.lead(self.config)

    @property
    def patch(self) -> int:
        size = self.config.patch_size
        return int(size if isinstance(size, int) else size[0])

    @property
    def size_px(self) -> int:
        """Return the network's default input size in pixels."""
        size = self.layout.size_px or self.config.image_size
        return int(size if isinstance(size, int) else size[0])

    def digest(self) -> str:
        """Return a digest of everything but the weights that decides the features."""
        content = self.config.to_dict() | {"transformers_version": None}
        return digest([json.loads(json.dumps(content, default=str)), self.pixels, self.resampling])


def read_vision(folder: Path, model_types: Sequence[str], *, fix: str) -> Vision:
    """Return the network that a folder's config.json describes. Raise CheckpointError when it is not one of ``model_types``."""
    layouts = [LAYOUTS[name] for name in model_types]
    content = read_json(folder / "config.json", fix)
    found = content.get("model_type")
    for layout in layouts:
        if found in (layout.model_type, layout.outer):
            inner = content.get("vision_config", {}) if found == layout.outer else content
            return Vision(layout, _configuration(layout, inner, folder, fix), *_pixels(layout, folder, fix))
    known = sorted({name for layout in layouts for name in (layout.model_type, layout.outer) if name})
    raise CheckpointError(
        f"the checkpoint is a {found!r} model", where=str(folder / "config.json"), allowed=", ".join(known), fix=fix
    )


def _configuration(layout: Layout, content: Mapping[str, Any], folder: Path, fix: str) -> Any:
    try:
        return getattr(transformers, layout.config_class).from_dict(dict(content) | layout.changed)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise CheckpointError(
            f"config.json is not one of a {layout.model_type} model ({' '.join(str(error).split())})",
            where=str(folder),
            fix=fix,
        ) from None


def _pixels(layout: Layout, folder: Path, fix: str) -> tuple[tuple[Channels, Channels], Filter]:
    """Return mean, deviation and filter: from the folder's preprocessor_config.json, else from the model card."""
    path = folder / "preprocessor_config.json"
    stated = read_json(path, fix) if path.is_file() else {}
    names: dict[int, Filter] = {filter_.value: name for name, filter_ in FILTERS.items()}
    try:
        mean, std = (_channels(stated.get(key, own)) for key, own in zip(_KEYS, layout.pixels, strict=True))
        resampling = names[int(stated["resample"])] if stated.get("resample") is not None else layout.resampling
        if min(std) <= 0:
            raise ValueError("a deviation is not positive")
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be used ({type(error).__name__}: {error})", fix=fix) from None
    return (mean, std), resampling


def _channels(values: Any) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def stand_ins(paths: Sequence[Path], *, fix: str) -> dict[str, Tensor]:
    """Build entries of weight files from their headers alone: zeros of the stored shapes that share one number."""
    shapes = {name: shape for path in paths for name, shape in read_shapes(path, fix=fix).items()}
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def load_network(vision: Vision, folder: Path, *, fix: str) -> tuple[nn.Module, str]:
    """Return the network with its weights, and the digest of weights, configuration and pixel values."""
    paths = weight_paths(folder, _FILES, fix)
    state: dict[str, Tensor] = {}
    for path in paths:
        part = read_weights(path, fix=fix)
        entry_shapes(part, where=str(path))
        state |= part
    return build(vision, state, where=str(folder), fix=fix), digest([vision.digest(), [file_digest(path) for path in paths]])


def check_network(vision: Vision, folder: Path, *, fix: str) -> None:
    """Raise CheckpointError unless the weight files have exactly the network's entries. Reads headers only."""
    build(vision, stand_ins(weight_paths(folder, _FILES, fix), fix=fix), where=str(folder), fix=fix)


def build(vision: Vision, state: Mapping[str, Tensor], *, where: str, fix: str) -> nn.Module:
    """Return the network holding ``state``. Raise CheckpointError naming missing, unexpected and misshapen entries."""
    layout = vision.layout
    own = {name: value for name, value in state.items() if not _elsewhere(name, layout)}
    try:
        with _quiet():
            model, info = getattr(transformers, layout.model_class).from_pretrained(
                None, config=vision.config, state_dict=own, output_loading_info=True, ignore_mismatched_sizes=True,
                attn_implementation="sdpa", dtype=torch.float32, local_files_only=True,
            )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"weights cannot be loaded ({str(error).splitlines()[0]})", where=where, fix=fix) from None
    faults = [
        (label, sorted(str(entry) for entry in info[key]))
        for label, key in (("missing", "missing_keys"), ("unexpected", "unexpected_keys"), ("misshapen", "mismatched_keys"))
    ]
    text = "; ".join(f"{len(names)} {label}, first {names[0]}" for label, names in faults if names)
    if text:
        what = f"weights do not fit the {layout.model_type} network of config.json: {text}"
        raise CheckpointError(what, where=where, fix=other_weights(fix))
    return cast(nn.Module, model)


def _elsewhere(name: str, layout: Layout) -> bool:
    """Return whether an entry belongs to another tower or head, SigLIP's pooling head, or position ids of old checkpoints."""
    inner = name.removeprefix("vision_model.")
    return name.startswith(layout.foreign) or inner.startswith("head.") or name.endswith("position_ids")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's load report and progress bar: the checks above report what is wrong."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
