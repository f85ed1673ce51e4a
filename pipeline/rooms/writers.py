"""Files of one room in the posed RGB-D layout, with a marker written last: a room is whole or it is made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.index import files_checksum, record_from_json, record_to_json, scene_checksum, with_depth_of_files
from pipeline.provenance import write_atomic
from pipeline.rooms.catalog import ROOM_WORDS, Words
from pipeline.rooms.facts import RoomFacts, facts_from_json, facts_of
from pipeline.scene import SceneObject, SceneRecord

if TYPE_CHECKING:
    from pipeline.rooms.scene import Film

MARKER = "room.json"


class ScenePlace(Protocol):
    """Where one scene goes, in which split, and the digest of everything that its files depend on."""

    @property
    def scene_id(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    @property
    def split(self) -> str: ...

    @property
    def spec(self) -> str: ...


@dataclass(frozen=True, slots=True)
class RoomJob:
    """What makes one room: its place among the rooms of a split, the options that pixels depend on, where it goes;
    ``spatial``: measure what VSI-Bench asks for."""

    root: Path
    split: str
    number: int
    seed: int
    views: int
    size: tuple[int, int]
    objects: tuple[int, int]
    spec: str
    spatial: bool = False

    @property
    def scene_id(self) -> str:
        return f"room_{self.split}_{self.number:05d}"

    @property
    def folder(self) -> Path:
        return self.root / self.scene_id


def make_room_files(job: RoomJob) -> str:
    """Make a room and write its folder; the marker comes last. Returns the scene id."""
    from pipeline.rooms.scene import build_room

    built = build_room((job.seed, job.split, job.number), views=job.views, size=job.size, objects=job.objects)
    write_room(job, built, facts_of(job.scene_id, built, spatial=job.spatial))
    return job.scene_id


def write_room(job: ScenePlace, built: Film, facts: dict[str, Any], words: Words = ROOM_WORDS) -> None:
    """Write the folder of a filmed room; the marker with record and ``facts`` comes last."""
    files = _files(built.rgb, built.depth_mm, built.poses, built.matrix, facts["frame_ids"])
    if job.folder.exists():
        shutil.rmtree(job.folder)
    job.folder.mkdir(parents=True)
    for name, data in files.items():
        (job.folder / name).write_bytes(data)
    record = SceneRecord(
        scene_id=job.scene_id,
        split=job.split,
        frame_ids=tuple(facts["frame_ids"]),
        world_from_camera=built.poses,
        intrinsics=built.matrix,
        depth_intrinsics=built.matrix,
        image_size=(built.rgb.shape[1], built.rgb.shape[2]),
        depth_size=(built.depth_mm.shape[1], built.depth_mm.shape[2]),
        objects=_objects(facts_from_json(facts, words)),
        proposals=None if job.split == "train" else built.proposals,
        checksum=files_checksum({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}),
    )
    record = with_depth_of_files(job.folder, record, known=dict(enumerate(built.depth_mm)))
    marker = {"spec": job.spec, "record": record_to_json(record), "facts": facts}
    # No fsync: a marker that survives a power cut without its files is found out by the checksum.
    write_atomic(job.folder / MARKER, json.dumps(marker, sort_keys=True, separators=(",", ":")) + "\n", durable=False)


def _files(
    rgb: NDArray[np.uint8],
    depth_mm: NDArray[np.uint16],
    poses: NDArray[np.float64],
    matrix: NDArray[np.float64],
    frame_ids: list[str],
) -> dict[str, bytes]:
    """File name -> content of a room's folder."""
    from pipeline.rooms.sensor import jpeg_bytes, png_bytes

    square = np.eye(4)
    square[:3, :3] = matrix
    files = {"intrinsic.txt": _matrix_text(square), "depth_intrinsic.txt": _matrix_text(square)}
    for view, frame in enumerate(frame_ids):
        files[f"{frame}.jpg"] = jpeg_bytes(rgb[view])
        files[f"{frame}.png"] = png_bytes(depth_mm[view])
        files[f"{frame}.txt"] = _matrix_text(poses[view])
    return files


def _matrix_text(matrix: NDArray[np.float64]) -> bytes:
    return "".join(" ".join(f"{v:.7f}" for v in row) + "\n" for row in matrix).encode()


def _objects(facts: RoomFacts) -> tuple[SceneObject, ...]:
    found = []
    for thing in facts.things:
        attributes = {"color": thing.colour}
        if thing.on is not None:
            attributes["on"] = str(thing.on)
        found.append(SceneObject(thing.object_id, thing.category, thing.box(), attributes))
    return tuple(found)


def read_room(job: ScenePlace, words: Words = ROOM_WORDS) -> tuple[SceneRecord, RoomFacts] | None:
    """Record and facts of a finished room; None when it is not there, not whole, or of another spec."""
    path = job.folder / MARKER
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["spec"] != job.spec:
            return None
        record = record_from_json(content["record"], where=str(path))
        facts = facts_from_json(content["facts"], words)
        checksum = scene_checksum(job.folder, record.frame_ids)
    except (
        FileNotFoundError,
        NotADirectoryError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        ValueError,
        DataError,
    ):
        return None
    return (record, facts) if record.checksum == checksum else None
