"""Seeded initialisation, digests and atomic files of weights."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.core.errors import CheckpointError
from pipeline.core.files import check_readable, writing
from pipeline.core.hf_folder import stand_in
from pipeline.core.runtime import out_of_memory

INITIAL_STD = 0.02
LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header; the format allows no more."""
STATE_ALONE = "save the network's state dict alone: torch.save(model.state_dict(), 'model.pt')"
Shape = tuple[int, ...]
Value = TypeVar("Value")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def initialise(model: nn.Module, seed: int) -> None:
    """Truncated normal weights from ``seed`` alone, whatever was drawn before; norms and layer scales keep their start."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            std = (1.0 / module.in_features) ** 0.5
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 1)[-1].endswith(("token", "tokens", "pos_embed")):
            nn.init.normal_(parameter, std=INITIAL_STD, generator=generator)


def state_digest(state: dict[str, Tensor]) -> str:
    """First 16 hex digits of SHA-256 over names, types, shapes and values."""
    value = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        value.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        value.update(tensor.view(torch.uint8).numpy().data if tensor.dim() else repr(tensor.item()).encode())
    return value.hexdigest()[:16]


def save_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all, with the mode that the umask allows."""
    with writing(path.parent) as folder:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, folder / path.name)


def read_weights(path: Path, *, fix: str) -> dict[str, Tensor]:
    """State dict of a .safetensors file or a tensors-only .pt/.pth file. CheckpointError when it cannot be read."""
    check_readable(path)
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.suffix in WEIGHT_SUFFIXES)
        raise CheckpointError(f"weights {path} are a folder", allowed=f"a file in it: {', '.join(inside) or '(none)'}", fix=fix)
    if not path.is_file():
        raise CheckpointError(f"weights {path} do not exist", fix=fix)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only the archives that torch has written since 1.6 can be mapped; older files are read as a whole.
        state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen types for damaged files; all mean the same here
        if out_of_memory(error):
            raise
        raise _unreadable(path, error, fix) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"weights {path} hold {type(state).__name__}, not named tensors", fix=fix)
    return named(state, where=str(path))


def named(state: Mapping[Any, Value], *, where: str) -> dict[str, Value]:
    """``state`` when all its keys are text. CheckpointError otherwise."""
    others = [key for key in state if not isinstance(key, str)]
    if others:
        raise CheckpointError(
            f"weights hold an entry under {others[0]!r} ({type(others[0]).__name__}), and entries have names",
            where=where,
            allowed="the state dict of a network: entry name -> tensor",
            fix=STATE_ALONE,
        )
    return dict(state)


def read_shapes(path: Path, *, fix: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all entries; of a safetensors file only the header is read, of a .pt file no tensor's bytes."""
    check_readable(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return entry_shapes(read_weights(path, fix=fix), where=str(path))
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:  # as above: any fault of the file means the same here
        raise _unreadable(path, error, fix) from None


def _unreadable(path: Path, error: Exception, fix: str) -> CheckpointError:
    """Return the error for an unreadable file: what it is instead of weights if that is known, else why reading failed."""
    found = stand_in(path)
    other = found[0] if found else _other_format(path) or _cut_short(path)
    if other is not None:
        return CheckpointError(f"weights {path} cannot be read: {other}", fix=(found and found[1]) or fix)
    foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
    if foreign is not None:
        return CheckpointError(
            f"weights {path} cannot be read: beside tensors it holds {foreign[1]}, and loading such objects may run code",
            allowed="named tensors and plain data, in .pt, .pth or .safetensors",
            fix=f"{fix}; or, where you trust the file, load it with its own package and save the state dict alone",
        )
    first = re.split(r"\n|\.\s+(?=[A-Z])", str(error).strip())[0]
    what = f"weights {path} cannot be read ({type(error).__name__}: {first}); is it whole? It has {path.stat().st_size} bytes"
    return CheckpointError(what, fix=fix)


def _other_format(path: Path) -> str | None:
    """Return what a file is whose first bytes show that it is not of the format which its name says."""
    with path.open("rb") as stream:
        start = stream.read(16)
    named_safetensors = path.suffix == ".safetensors"
    is_safetensors = start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < path.stat().st_size
    is_torch = zipfile.is_zipfile(path) or start[:1] == b"\x80"
    if not named_safetensors and is_safetensors:
        return "it is a safetensors file; let its name end in .safetensors"
    if named_safetensors and is_torch:
        return "it is a file of torch.save; let its name end in .pt"
    if not named_safetensors and not is_torch and not start.startswith(b"PK"):
        return f"it is no file of torch.save (it begins with {start!r})"
    return None


def _cut_short(path: Path) -> str | None:
    """That a safetensors file ends before its numbers do, by its own header."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, LONGEST_HEADER)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
    there = path.stat().st_size
    return f"it is cut short: {there:,} of {whole:,} bytes are there" if there < whole else None


def entry_shapes(state: Mapping[str, object], *, where: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a state dict's entries. CheckpointError when it holds anything but named tensors."""
    other = next((name for name, value in state.items() if not isinstance(value, Tensor)), None)
    if other is not None:
        raise CheckpointError(
            f"weights hold {type(state[other]).__name__} under {other!r}, not a tensor",
            where=where,
            allowed="a file that holds the state dict itself: entry name -> tensor",
            fix=STATE_ALONE,
        )
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}


def check_entries(model: nn.Module, state: Mapping[str, Tensor], *, where: str, fix: str) -> None:
    """CheckpointError that counts and names entries that are missing, unexpected or misshapen for ``model``."""
    check_shapes(model, entry_shapes(state, where=where), where=where, fix=fix)


def check_shapes(model: nn.Module, found: Mapping[str, Shape], *, where: str, fix: str) -> None:
    """``check_entries`` for names and shapes alone; ``model`` may be on the meta device."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    text = differences(own, found)
    if text:
        raise CheckpointError(f"weights do not fit the network: {text}", where=where, fix=other_weights(fix))


def differences(own: Mapping[str, Shape], found: Mapping[str, Shape], *, every: bool = True) -> str:
    """Describe how a file differs from the network: counts, and the first of each; "" when nothing. ``every``: also what is
    more.
    """
    missing = [name for name in sorted(own) if name not in found]
    extra = [name for name in sorted(found) if name not in own] if every else []
    shapes = [name for name in sorted(own) if name in found and own[name] != tuple(found[name])]
    parts = [f"{len(missing)} missing, first {missing[0]!r} {_shown(own[missing[0]])}"] if missing else []
    parts += [f"{len(extra)} unexpected, first {extra[0]!r} {_shown(found[extra[0]])}"] if extra else []
    if shapes:
        first = shapes[0]
        parts.append(
            f"{len(shapes)} misshapen, first {first!r}: {_shown(found[first])} in the file, {_shown(own[first])} in the network"
        )
    before = _prefix(missing, extra)
    parts += [f"all names begin with {before!r} in the file"] if before else []
    return "; ".join(parts)


def _prefix(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Return what stands before every name in the file (`module.` of parallel training), where the names fit without it."""
    if not missing or not extra or not extra[0].endswith(missing[0]):
        return ""
    before = extra[0][: -len(missing[0])]
    return before if {name.removeprefix(before) for name in extra} >= set(missing) else ""


def _shown(shape: Shape) -> str:
    return str(list(shape)) if shape else "one number"


def other_weights(fix: str) -> str:
    """Return what to do about a file that is whole and of another network: the same download would change nothing."""
    return f"the file is whole but of another network, so not the same one again: {fix}"
