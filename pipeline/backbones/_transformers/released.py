"""Checks of a checkpoint folder from its headers alone: all shards present, names and shapes as in the model's class.

The comparison is the loading of `transformers` itself with tensors on the meta device, so that renamed entries of older
checkpoints and tied weights count as they do when the weights are loaded. No tensor's bytes are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.utils import logging

from pipeline.backbones._transformers.chat import TURN_END
from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.backbones._transformers.models import FIX, OTHER, SINGLE, check_family, unfit
from pipeline.backbones._transformers.tokenizer import load_tokenizer, token_id
from pipeline.backbones.base import ModelSize
from pipeline.core.errors import CheckpointError
from pipeline.core.hf_folder import check_small_files, weight_paths
from pipeline.core.weights import read_shapes

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
_VISION = {"visual", "vision_tower", "vision_model"}


def check_released(family: type[LoadedTransformersModel], folder: Path) -> None:
    """Raise CheckpointError unless configuration, tokenizer, every shard and every weight of the class are there."""
    check_family(family, folder)
    state = header_state(folder)
    _check_tokenizer(family, folder)
    with _quiet():
        try:
            loaded: Any = family.model_class.from_pretrained(
                None,
                config=AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
                state_dict=state,
                device_map="meta",
                attn_implementation="sdpa",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (OSError, RuntimeError, ValueError) as error:
            check_small_files(folder, FIX)
            raise CheckpointError(
                f"weights do not fit the class ({str(error).splitlines()[0]})", where=str(folder), fix=OTHER
            ) from None
    _check_info(loaded[1], folder)


def _check_tokenizer(family: type[LoadedTransformersModel], folder: Path) -> None:
    """Check the tokenizer's files: without them the library silently makes an empty tokenizer of the family."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            "the tokenizer is missing",
            where=str(folder),
            allowed=" or ".join(TOKENIZER_FILES),
            fix="put the checkpoint's tokenizer.json and tokenizer_config.json beside its weights",
        )
    tokenizer = load_tokenizer(folder)
    for token in (family.chat.visual, TURN_END):
        token_id(tokenizer, token, str(folder))


def _check_info(info: dict[str, Any], folder: Path) -> None:
    text = unfit(info)
    if text:
        raise CheckpointError(f"weights do not fit config.json: {text}", where=str(folder), fix=OTHER)


def header_state(folder: Path) -> dict[str, torch.Tensor]:
    """Return every entry of every shard on the meta device. Raise CheckpointError for missing, truncated or other files."""
    state: dict[str, torch.Tensor] = {}
    for path in weight_paths(folder, (SINGLE,), FIX):
        shapes = read_shapes(path, fix=f"download {path.name} again; the other files stay")
        state |= {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return state


def released_size(family: type[LoadedTransformersModel], folder: Path, tokens: tuple[int, int] | None) -> ModelSize:
    """Return the model size in a folder, from headers and configuration. Raise CheckpointError as ``check_released``."""
    check_family(family, folder)
    counts = {True: 0, False: 0}
    for name, tensor in header_state(folder).items():
        counts[bool(_VISION & set(name.split(".")))] += tensor.numel()
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text, vision = config.get_text_config(), config.vision_config.to_dict()
    rows, cols = tokens or family.default_tokens(config)
    merged = vision.get("spatial_merge_size")
    return ModelSize(
        language=counts[False],
        vision=counts[True],
        layers=int(text.num_hidden_layers),
        width=int(text.hidden_size),
        tokens=rows * cols,
        patches=rows * cols * merged**2 if merged else _patches(vision["image_size"], vision["patch_size"]),
    )


def _patches(image: Any, patch: Any) -> int:
    """Return the number of patches of a square or (height, width) image."""
    sizes = image if isinstance(image, list | tuple) else (image, image)
    sides = patch if isinstance(patch, list | tuple) else (patch, patch)
    return int(sizes[0] // sides[0]) * int(sizes[1] // sides[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's own report of missing weights, which would precede the error that counts them."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
