"""What a room was made of, as a short digest: a house file or a model that has changed makes its rooms anew, and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.core.provenance import digest, file_stamp
from pipeline.datasets.front3d.assemble import FrontRoom
from pipeline.datasets.front3d.house import HouseRoom


def state_of(models: Path, textures: Path | None, jids: Iterable[str], texture_ids: Iterable[str]) -> str:
    """Digest of the sizes and times of the files of these models and textures, absent ones too, and of the list of models."""
    files = [models / "model_info.json"]
    files += [models / jid / name for jid in sorted(jids) for name in ("raw_model.obj", "texture.png")]
    files += [textures / name / "texture.png" for name in sorted(texture_ids)] if textures else []
    return digest([file_stamp(path) for path in files])


def jids_of(room: HouseRoom) -> set[str]:
    """Models that a room places."""
    return {furniture.jid for furniture, _ in room.furniture}


def textures_of(room: HouseRoom) -> set[str]:
    """Textures that the building around a room has."""
    return {p.material.texture for p, _ in (*room.parts, *room.openings) if p.material is not None and p.material.texture}


def fingerprint(source: HouseRoom, room: FrontRoom, state: str) -> str:
    """Digest of all that a room is made of: its building as assembled, what it places, and ``state``, that of its models."""
    whole = hashlib.sha256(state.encode())
    for furniture, placement in source.furniture:
        whole.update(repr((furniture.jid, furniture.category, furniture.title)).encode())
        whole.update(np.concatenate([placement.matrix.ravel(), placement.offset]).tobytes())
    shell = room.shell
    for values in (shell.vertices, shell.albedo, room.frame.matrix()):
        whole.update((np.round(values, 6) + 0.0).tobytes())  # + 0.0: there is no -0.0
    for numbers in (shell.triangles, shell.surface, room.plan.inside, room.plan.taken):
        whole.update(np.ascontiguousarray(numbers).tobytes())
    whole.update(repr((shell.triangles.shape, room.landmarks, room.unsaid)).encode())
    return whole.hexdigest()[:16]
