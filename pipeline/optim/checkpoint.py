"""Checkpoints of a running training: written whole or not at all, checked on read, resumed bit for bit.

``step00000100/`` holds model.safetensors (all that is trained), state.pt (optimizer and generator state, loaded with
``weights_only=True``), losses.json (of every step so far) and checkpoint.json (step, digest of what is trained, digests of the
files, and of itself). It is renamed into place when complete; the previous one is removed after that. Batches need no state:
they depend on their step's number alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from pipeline.core.errors import CheckpointError, DataError
from pipeline.core.files import UNFINISHED, fsync, settle
from pipeline.core.finished import damaged_files
from pipeline.core.provenance import digest, file_digest, read_manifest, write_manifest
from pipeline.core.runtime import out_of_memory

_MODEL, _STATE, _LOSSES, _FACTS = "model.safetensors", "state.pt", "losses.json", "checkpoint.json"


class Checkpoints:
    """The checkpoints of one training in ``folder``, which is theirs alone.

    ``identity``: digest of spec and inputs. Checkpoints of another identity or another release of torch are never used.
    """

    def __init__(self, folder: Path, identity: str):
        self.folder = folder
        self.digest = digest([identity, torch.__version__])

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, losses: Sequence[dict[str, float]]) -> None:
        """Write the state after as many finished steps as there are ``losses``, then drop older checkpoints."""
        step = len(losses)
        final = self.folder / f"step{step:08d}"
        temporary = self.folder / f".{final.name}.{os.getpid()}{UNFINISHED}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            save_model(module, str(temporary / _MODEL))
            with (temporary / _STATE).open("wb") as stream:
                torch.save({"optimizer": optimizer.state_dict(), "generator": torch.get_rng_state()}, stream)
            (temporary / _LOSSES).write_text(json.dumps(list(losses)), encoding="utf-8")
            files = {name: file_digest(temporary / name) for name in (_MODEL, _STATE, _LOSSES)}
            write_manifest(temporary / _FACTS, {"step": step, "digest": self.digest, "files": files})
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

    def latest(self) -> Path | None:
        """Return the newest complete and undamaged checkpoint of this digest, if any."""
        for path in sorted(self.folder.glob("step*"), reverse=True):
            facts = self._facts(path)
            if facts is not None and facts.get("digest") != self.digest:
                steps = f"{facts.get('step')} finished steps"
                print(
                    f"warning: checkpoint {path} is of another spec, other inputs or another torch: {steps} are not used",
                    file=sys.stderr,
                )
                continue
            if facts is not None and not damaged_files(path, facts["files"]):
                return path
            print(f"warning: checkpoint {path} is damaged and not used", file=sys.stderr)
        return None

    def _facts(self, path: Path) -> dict[str, Any] | None:
        """Return what stands in checkpoint.json; None when it is damaged: the step alone decides how much is trained again."""
        try:
            return read_manifest(path / _FACTS, made_by="")
        except DataError:
            return None

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
        """Load the newest checkpoint into module, optimizer and torch's generator.

        Returns the losses of all finished steps; without a checkpoint that can be used, drops what is there.
        """
        path = self.latest()
        if path is None:
            self.remove()
            return []
        try:
            load_model(module, str(path / _MODEL), strict=True)
            state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["generator"])
            losses: list[dict[str, float]] = json.loads((path / _LOSSES).read_text(encoding="utf-8"))
            return losses
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
