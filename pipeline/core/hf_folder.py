"""A checkpoint folder in the transformers layout, looked at without torch: its JSON files and which weight files it has."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.core.errors import CheckpointError, ConfigError

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf")
_SHOWN = 3


def layer_count(folder: Path, part: Literal["text_config", "vision_config"]) -> int | None:
    """Layers of a part of the model by the folder's config.json; None where it does not say them (or is not there)."""
    try:
        content: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inner = content.get(part)
        counts = [where.get("num_hidden_layers") for where in (inner, content) if isinstance(where, dict)]
    except (OSError, ValueError, AttributeError):
        return None
    return next((count for count in counts if isinstance(count, int)), None)


def checked_layers(layers: Sequence[int], depth: int) -> list[int]:
    """``layers`` counted from the front. ConfigError for one that ``depth`` blocks do not have or that is named twice."""
    for layer in layers:
        if not -depth <= layer < depth:
            raise ConfigError(f"the network has no block {layer}", allowed=f"{-depth} to {depth - 1}")
    counted = [layer % depth for layer in layers]
    if len(set(counted)) < len(counted):
        raise ConfigError(f"layers {list(layers)} name a block twice ({depth} blocks, so {depth - 1} is -1)")
    return counted


def stand_in(path: Path) -> tuple[str, str | None] | None:
    """Return what a file is that a failed download left, and the fix; None when it is something else.

    The second is None where only the whole download again helps.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(256)
    except OSError as error:
        return str(error.strerror), None
    if not start:
        return "the file is empty", None
    if start.startswith(b"version https://git-lfs"):
        size = re.search(rb"size (\d+)", start)
        amount = f" ({int(size[1]):,} bytes)" if size else ""
        return (
            f"it is the pointer that Git LFS leaves where a file{amount} was not downloaded",
            f"git -C {path.parent} lfs pull, or download {path.name} alone",
        )
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page (a download that asked for a login or for consent ends so)", None
    return None


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """The object in a JSON file. CheckpointError that says what the file is instead."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path} does not exist", fix=fix) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})", fix=fix) from None
    except (ValueError, RecursionError) as error:
        what, own = stand_in(path) or (f"it is not valid JSON ({error})", None)
        raise CheckpointError(f"{path} cannot be read: {what}", fix=own or f"{fix} (this file alone is enough)") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object", fix=fix)
    return content


def check_small_files(folder: Path, fix: str) -> None:
    """CheckpointError for a file of the folder that is no weight file and that a failed download has left.

    For the error path: libraries name neither the file nor the cause.
    """
    for path in sorted(folder.glob("*")):
        if path.is_file() and path.suffix not in _WEIGHTS:
            found = stand_in(path) if path.suffix != ".md" else None
            if found is not None:
                raise CheckpointError(f"{path} cannot be read: {found[0]}", fix=found[1] or fix)
            if path.suffix == ".json":
                read_json(path, fix)


def weight_paths(folder: Path, names: Sequence[str], fix: str) -> list[Path]:
    """The weight files of a checkpoint: the first of ``names`` that is there, whole or as the shards of its index.

    CheckpointError when there is none, or a shard is missing.
    """
    there = [name for name in names if (folder / name).is_file() or (folder / f"{name}.index.json").is_file()]
    name = there[0] if there else names[0]
    index = folder / f"{name}.index.json"
    files = _shards(index, fix) if index.is_file() else [name]
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        more = " ..." if len(missing) > _SHOWN else ""
        what = f"{len(missing)} of {len(files)} weight files are missing, first {', '.join(missing[:_SHOWN])}{more}"
        if not there:
            others = sorted(path.name for path in folder.glob("*") if path.suffix in _WEIGHTS)
            what += f" (there are {', '.join(others[:_SHOWN])}, which are not read)" if others else ""
        some = there and f"download the missing file{'s' * (len(missing) > 1)} alone; the others stay"
        raise CheckpointError(what, where=str(folder), allowed=" or ".join(names), fix=some or fix)
    return [folder / file for file in files]


def _shards(index: Path, fix: str) -> list[str]:
    """Names of the shards that an index lists."""
    shards = read_json(index, fix).get("weight_map")
    names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
    if not names or any("/" in name for name in names):
        raise CheckpointError(f"{index} is not an index of shards: it has no weight_map of entries to file names", fix=fix)
    return names
