"""Checkpoints of a running training: written whole or not at all, checked on read, resumed bit for bit.

``checkpoints/step00000100/`` holds model.safetensors (backbone and heads), state.pt (optimizer and generator state, loaded with
``weights_only=True``) and checkpoint.json (step, digest of what is trained, digests of the files, and of itself). It is
renamed into place when complete; the previous one is removed after that. The sampler needs no state (training/sampler.py).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from pipeline.errors import CheckpointError, DataError
from pipeline.features.memory import out_of_memory
from pipeline.files import UNFINISHED, fsync, settle
from pipeline.finished import damaged_files
from pipeline.provenance import file_digest, read_manifest, write_manifest

_MODEL, _STATE, _FACTS = "model.safetensors", "state.pt", "checkpoint.json"


class Checkpoints:
    """The checkpoints of one run folder. ``digest`` identifies spec and inputs: checkpoints of others are never used."""

    def __init__(self, run_folder: Path, digest: str):
        self.folder = run_folder / "checkpoints"
        self.digest = digest

    def save(
        self,
        step: int,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write the state after ``step`` finished steps and drop older ones. ``notes``: JSON files beside it, by name."""
        final = self.folder / f"step{step:08d}"
        temporary = self.folder / f".{final.name}.{os.getpid()}{UNFINISHED}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            self._write(temporary, step, model, optimizer, notes)
            settle(temporary)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            fsync(self.folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for other in self.folder.iterdir():
            if other != final and other.is_dir():
                shutil.rmtree(other, ignore_errors=True)

    def _write(
        self, folder: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, notes: Mapping[str, Any]
    ) -> None:
        save_model(model, str(folder / _MODEL))
        with (folder / _STATE).open("wb") as stream:
            torch.save({"optimizer": optimizer.state_dict(), "generator": torch.get_rng_state()}, stream)
        for name, note in notes.items():
            (folder / name).write_text(json.dumps(note), encoding="utf-8")
        files = {name: file_digest(folder / name) for name in (_MODEL, _STATE, *notes)}
        write_manifest(folder / _FACTS, {"step": step, "digest": self.digest, "files": files})

    def latest(self) -> Path | None:
        """The newest complete and undamaged checkpoint of this digest, if any."""
        for path in sorted(self.folder.glob("step*"), reverse=True):
            facts = self._facts(path)
            if facts is not None and facts.get("digest") != self.digest:
                steps = f"{facts.get('step')} finished steps"
                print(f"warning: checkpoint {path} is of another spec or other inputs: {steps} are not used", file=sys.stderr)
                continue
            if facts is not None and not damaged_files(path, facts["files"]):
                return path
            print(f"warning: checkpoint {path} is damaged and not used", file=sys.stderr)
        return None

    def _facts(self, path: Path) -> dict[str, Any] | None:
        """What stands in checkpoint.json; None when it is damaged: the step alone decides how much is trained again."""
        try:
            return read_manifest(path / _FACTS, made_by="")
        except DataError:
            return None

    def restore(self, path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load a checkpoint into model, optimizer and torch's generator; the number of finished steps."""
        facts = self._facts(path)
        try:
            load_model(model, str(path / _MODEL), strict=True)
            state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["generator"])
            return int((facts or {})["step"])
        except Exception as error:  # torch, pickle and safetensors raise a dozen types; all mean the same here
            if out_of_memory(error):
                raise
            raise CheckpointError(
                f"checkpoint cannot be resumed ({next(iter(str(error).splitlines()), type(error).__name__)})",
                where=str(path),
                fix=f"delete {self.folder} to start this run over",
            ) from None

    def remove(self) -> None:
        """Drop all checkpoints (the run is finished, or another spec starts over)."""
        shutil.rmtree(self.folder, ignore_errors=True)
