"""Making models: tiny ones from a seed, saved or released ones from a folder, without network and without remote code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.backbones._transformers.tokenizer import add_alignment_tokens, load_tokenizer, token_id
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN
from pipeline.core.errors import CheckpointError
from pipeline.core.files import check_readable
from pipeline.core.hf_folder import check_small_files, read_json, weight_paths
from pipeline.core.runtime import out_of_memory
from pipeline.core.weights import read_shapes

SINGLE = "model.safetensors"
FIX = "download the checkpoint again, all safetensors shards"
OTHER = "the weight files are whole: config.json is of another model or version; take all files from one release"
LAYOUT = "set `checkpoint` to a folder in the transformers layout"

disable_progress_bar()
"""Loading and saving take well under a second at tiny size; bars of the library would only break up the pipeline's own."""


def build_model(
    family: type[LoadedTransformersModel], tokenizer_folder: Path, *, seed: int, device: str, tokens: tuple[int, int] | None
) -> LoadedTransformersModel:
    """Build a tiny randomly initialised model of the family's real class from ``seed``; leave the global generator alone."""
    tokenizer = load_tokenizer(tokenizer_folder)
    config = family.tiny_config(tokenizer, tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family.model_class._from_config(config, attn_implementation="sdpa", dtype=torch.float32)
        family.start_tiny(model)
    cast(torch.nn.Module, model).to(device)
    return family(model, tokenizer, tokens)


def load_model(
    family: type[LoadedTransformersModel], folder: Path, *, device: str, dtype: str, tokens: tuple[int, int] | None
) -> LoadedTransformersModel:
    """Load a saved or released model. Raise CheckpointError for missing, partial, truncated or other weights."""
    check_family(family, folder)
    for path in (*folder.glob("*.safetensors"), folder / "tokenizer.json"):  # read by Rust; the rest by Python
        check_readable(path)
    tokenizer = load_tokenizer(folder)
    model, info = _from_pretrained(family, folder, dtype)
    text = unfit(info)
    if text:
        raise CheckpointError(f"weights do not fit config.json: {text}", where=str(folder), fix=OTHER)
    if add_alignment_tokens(tokenizer):
        _grow_embeddings(model, tokenizer)
    cast(torch.nn.Module, model).to(device)
    return family(model, tokenizer, tokens)


def check_family(family: type[LoadedTransformersModel], folder: Path) -> None:
    """Raise CheckpointError unless the folder's config.json describes a model of this family."""
    config = folder / "config.json"
    wanted = cast(type[PreTrainedConfig], family.model_class.config_class).model_type
    found = read_json(config, LAYOUT).get("model_type")
    if found != wanted:
        raise CheckpointError(
            f"{config} describes a {found!r} model", allowed=repr(wanted), fix="choose the backbone kind for it"
        )


def _from_pretrained(family: type[LoadedTransformersModel], folder: Path, dtype: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        loaded: Any = family.model_class.from_pretrained(
            folder,
            config=AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
            dtype=getattr(torch, dtype),
            ignore_mismatched_sizes=True,  # they are in the report, which is read: the library's own error names none
            output_loading_info=True,
        )
        return cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise
        for path in weight_paths(folder, (SINGLE,), FIX):  # the library names neither the file nor the cause
            read_shapes(path, fix=f"download {path.name} again; the other files stay")
        check_small_files(folder, FIX)
        what = f"weights cannot be loaded ({str(error).splitlines()[0]})"
        raise CheckpointError(what, where=str(folder), fix=OTHER) from None


def unfit(info: dict[str, Any]) -> str:
    """Return what the library's loading report says of entries that are missing or misshapen: counts, and the first of each."""
    missing = sorted(str(name) for name in info["missing_keys"])
    shapes = sorted((str(name), tuple(file), tuple(model)) for name, file, model in info["mismatched_keys"])
    parts = [f"{len(missing)} missing, first {missing[0]!r}"] if missing else []
    if shapes:
        name, file, model = shapes[0]
        parts.append(f"{len(shapes)} of another shape, first {name!r}: {file} in the file, {model} by config.json")
    return "; ".join(parts)


def _grow_embeddings(model: PreTrainedModel, tokenizer: Any) -> None:
    """Add rows for new tokens, starting at the mean of the trained embeddings, as in the 3DRS code."""
    rows = int(cast(torch.Tensor, model.get_input_embeddings().weight).shape[0])
    trained = min(rows, *(token_id(tokenizer, t) for t in (GROUND_TOKEN, COORD_TOKEN)))
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    modules: Any = (model.get_input_embeddings(), model.get_output_embeddings())
    tables: dict[int, torch.Tensor] = {id(m.weight): m.weight for m in modules}
    with torch.no_grad():
        for weight in tables.values():
            mean = weight[:trained].float().mean(0).to(weight.dtype)
            for token in (GROUND_TOKEN, COORD_TOKEN):
                weight[token_id(tokenizer, token)] = mean
