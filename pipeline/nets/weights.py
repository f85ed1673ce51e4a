"""Seeded initialisation, digests and atomic files of weights."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import CheckpointError

INITIAL_STD = 0.02


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
    """Write a safetensors file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary)
    _keep(temporary, path)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a resumable training state whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    torch.save(content, temporary)
    _keep(temporary, path)


def _keep(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_weights(path: Path, *, mend: str) -> dict[str, Tensor]:
    """State dict of a .safetensors file or a tensors-only .pt/.pth file. CheckpointError when it cannot be read."""
    if not path.is_file():
        raise CheckpointError(f"weights {path} do not exist", mend=mend)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen types for damaged files; all mean the same here
        raise CheckpointError(f"weights {path} cannot be read ({type(error).__name__}: {error})", mend=mend) from None


def check_entries(model: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """CheckpointError that counts and names entries that are missing, unexpected or misshapen for ``model``."""
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [n for n in sorted(set(own) & set(state)) if own[n].shape != state[n].shape]
    faults = [(label, names) for label, names in (("missing", missing), ("unexpected", extra), ("misshapen", shapes)) if names]
    if faults:
        text = "; ".join(f"{len(names)} {label}, first {names[0]!r}" for label, names in faults)
        raise CheckpointError(f"weights do not fit the network: {text}", where=where)
