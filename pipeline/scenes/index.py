"""The index of a prepared dataset: ``results/scenes/{dataset}/manifest.json`` and the reader of posed RGB-D scenes.

The manifest lists, per scene, split, THE ordered frame ids, poses, intrinsics, image sizes, ground-truth objects, proposals
and a checksum over the frames' files. Every later stage reads scenes through ``SceneIndex`` only.

On disk: ``{root}/{scene}/{frame}.jpg`` colour, ``{frame}.png`` depth uint16 mm (0 = invalid), ``{frame}.txt`` 4x4
world_from_camera (already axis-aligned), ``intrinsic.txt`` / ``depth_intrinsic.txt`` 4x4 in pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import DataError, FrameError
from pipeline.core.notes import Note, notes_from_json, notes_to_json
from pipeline.core.provenance import digest, file_digest, file_stamp, read_manifest, write_manifest
from pipeline.scenes.conventions import DEPTH_UNIT_PER_M, checked_id
from pipeline.scenes.depth_quality import depth_notes
from pipeline.scenes.source_images import NO_IMAGE, refuse_turned
from pipeline.scenes.types import DepthFigures, Scene, SceneObject, SceneRecord

SCHEMA_VERSION = 1


def record_to_json(record: SceneRecord) -> dict[str, Any]:
    """A scene record as manifest content."""
    return {
        "scene_id": record.scene_id,
        "split": record.split,
        "frame_ids": list(record.frame_ids),
        "world_from_camera": np.round(record.world_from_camera, 7).tolist(),
        "intrinsics": record.intrinsics.tolist(),
        "depth_intrinsics": record.depth_intrinsics.tolist(),
        "image_size": list(record.image_size),
        "depth_size": list(record.depth_size),
        "objects": [
            {"object_id": o.object_id, "category": o.category, "box": list(o.box), "attributes": o.attributes}
            for o in record.objects
        ],
        "proposals": None if record.proposals is None else np.round(record.proposals, 6).tolist(),
        "checksum": record.checksum,
        "depth": None if record.depth is None else asdict(record.depth),
    }


def record_from_json(entry: dict[str, Any], *, where: str) -> SceneRecord:
    """Manifest content as a scene record; ids are checked before they can become paths."""
    try:
        scene_id = checked_id(entry["scene_id"], what="scene id", where=where)
        poses = np.asarray(entry["world_from_camera"], dtype=np.float64).reshape(-1, 4, 4)
        frame_ids = tuple(checked_id(f, what="frame id", where=where) for f in entry["frame_ids"])
        if len(poses) != len(frame_ids) or not np.isfinite(poses).all():
            raise FrameError(f"scene {scene_id}: {len(frame_ids)} frames but poses {poses.shape} or non-finite", where=where)
        proposals = entry["proposals"]
        return SceneRecord(
            scene_id=scene_id,
            split=entry["split"],
            frame_ids=frame_ids,
            world_from_camera=poses,
            intrinsics=np.asarray(entry["intrinsics"], dtype=np.float64).reshape(3, 3),
            depth_intrinsics=np.asarray(entry["depth_intrinsics"], dtype=np.float64).reshape(3, 3),
            image_size=(int(entry["image_size"][0]), int(entry["image_size"][1])),
            depth_size=(int(entry["depth_size"][0]), int(entry["depth_size"][1])),
            objects=tuple(
                SceneObject(int(o["object_id"]), o["category"], tuple(o["box"]), dict(o["attributes"]))
                for o in entry["objects"]
            ),
            proposals=None if proposals is None else np.asarray(proposals, dtype=np.float64).reshape(-1, 6),
            checksum=entry["checksum"],
            depth=None if entry.get("depth") is None else DepthFigures(**entry["depth"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"scene entry is malformed: {error!r}", where=where, fix="run: snakemake -R prepare") from None


def scene_checksum(folder: Path, frame_ids: Sequence[str]) -> str:
    """Digest over the content of all files of a scene: both intrinsics, and colour, depth and pose of every frame."""
    names = ["intrinsic.txt", "depth_intrinsic.txt", *(f"{f}.{kind}" for f in frame_ids for kind in ("jpg", "png", "txt"))]
    return files_checksum({name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names})


def files_checksum(hashes: Mapping[str, str]) -> str:
    """The same from name -> SHA-256 (hex) of each file, for whoever writes them."""
    return digest(sorted(hashes.items()))


def source_digest(record: SceneRecord) -> str:
    """Digest of all that a scene's frames are (files, poses, cameras, sizes), not of what is annotated in it."""
    content = record_to_json(record)
    return digest([content[name] for name in _SEEN])


_SEEN = (
    "scene_id",
    "frame_ids",
    "world_from_camera",
    "intrinsics",
    "depth_intrinsics",
    "image_size",
    "depth_size",
    "checksum",
)


def write_index(
    folder: Path,
    records: Sequence[SceneRecord],
    *,
    dataset: str,
    root: str,
    annotations: dict[str, Any],
    spec: str,
    notes: Sequence[Note] = (),
    skip_unmatched: bool | None = None,
) -> None:
    """Write manifest.json, last and atomically. ``root`` is relative to ``folder``; ``notes`` are what a user has to know.

    ``annotations``: ``{benchmark: {split: [file name, ...]}}`` relative to ``folder``; ``spec`` the digest of the cell's spec.
    ``skip_unmatched``: what the dataset's option ``skip_unmatched_annotations`` says; None where it has none.
    Digests of the annotation files stand in it too, so that what is made of them is made again when one changes.
    The index's digest, which features, runs, predictions and scores record, is of scenes, their ordered frames and the files.
    """
    os.sync()  # images and annotations reach the disk before the manifest that vouches for them
    scenes = [record_to_json(r) for r in records]
    names = {name for by_split in annotations.values() for listed in by_split.values() for name in listed}
    write_manifest(
        folder / "manifest.json",
        {
            "schema": SCHEMA_VERSION,
            "dataset": dataset,
            "spec": spec,
            "root": root,
            "annotations": annotations,
            "annotation_files": {name: file_digest(folder / name) for name in sorted(names) if (folder / name).is_file()},
            "scenes": scenes,
            "notes": notes_to_json([*notes, *depth_notes(records)]),
            "digest": digest([(s["scene_id"], s["frame_ids"], s["checksum"]) for s in scenes]),
        }
        | ({} if skip_unmatched is None else {"skip_unmatched": skip_unmatched}),
    )


def add_notes(manifest: Path, notes: Sequence[Note]) -> None:
    """Add notes to a written manifest."""
    if notes:
        content = SceneIndex(manifest).content
        write_manifest(manifest, content | {"notes": [*content["notes"], *notes_to_json(notes)]})


class SceneIndex:
    """Reader of a prepared dataset. Opening reads the manifest only; pixels are read scene by scene."""

    def __init__(self, manifest: Path):
        self.path = manifest
        self.folder = manifest.parent
        content = read_manifest(manifest, made_by=f"snakemake --cores all {manifest}")
        if content.get("schema") != SCHEMA_VERSION:
            raise DataError(
                f"{manifest} has schema {content.get('schema')!r}",
                allowed=str(SCHEMA_VERSION),
                fix=f"snakemake --cores all -f {manifest}",
            )
        self.content = content
        self.dataset: str = content["dataset"]
        self.digest: str = content["digest"]
        self.root = self.folder / content["root"]
        self._checked: dict[str, tuple[Any, ...]] = {}

    @cached_property
    def records(self) -> dict[str, SceneRecord]:
        """Scene id -> record, in manifest order. DataError when one is malformed or comes twice."""
        where = str(self.path)
        found: dict[str, SceneRecord] = {}
        for entry in self.content["scenes"]:
            record = record_from_json(entry, where=where)
            if found.setdefault(record.scene_id, record) is not record:
                raise DataError(f"scene {record.scene_id} comes twice", where=where, fix="run: snakemake -R prepare")
        return found

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """Return what a user has to know about the data."""
        return notes_from_json(self.content.get("notes", []))

    @property
    def skip_unmatched(self) -> bool:
        """Return whether readers of annotations leave out entries about scenes or objects that are not there."""
        return bool(self.content.get("skip_unmatched"))

    def content_digest(self, split: str) -> str:
        """Digest of all that stands here of one split's scenes. What is computed of one split does not depend on another."""
        return digest([record_to_json(record) for record in self.split(split)])

    def split(self, split: str) -> list[SceneRecord]:
        """Records of one split in manifest order."""
        return [record for record in self.records.values() if record.split == split]

    def annotation_files(self, benchmark: str, split: str) -> list[Path]:
        """The official files of a benchmark and split."""
        known = self.content["annotations"]
        by_split = known.get(benchmark, {})
        if split not in by_split:
            raise DataError(
                f"dataset {self.dataset!r} has no annotations of {benchmark!r} for split {split!r}",
                where=str(self.path),
                allowed=", ".join(f"{name} ({', '.join(splits)})" for name, splits in sorted(known.items())) or "(none)",
                fix=f"prepare it with them, take another split, or leave {benchmark} out",
            )
        for name in by_split[split]:
            self._check_annotation(name)
        return [self.folder / name for name in by_split[split]]

    def annotation_digests(self, split: str) -> dict[str, str]:
        """Digest of every annotation file of one split, by name."""
        names = {name for by_split in self.content["annotations"].values() for name in by_split.get(split, [])}
        return {name: self.content["annotation_files"].get(name, "") for name in sorted(names)}

    def _check_annotation(self, name: str) -> None:
        """DataError unless an annotation file is the one that `prepare` wrote."""
        known, path = self.content["annotation_files"].get(name), self.folder / name
        if known is not None and path.is_file() and file_digest(path) != known:
            raise DataError(
                f"{path} is damaged or was edited: it is not the file that `prepare` wrote",
                where=f"{self.path}: annotation_files",
                fix=f"snakemake --cores all -f {self.path}",
            )

    def load(self, scene_id: str, *, depth: bool = True, frame_ids: Sequence[str] | None = None) -> Scene:
        """Read the frames of a scene (all, or some of them in this order); ``depth`` as ``load_scene``.

        FrameError: a file is missing, truncated, misshapen, or not the one that `prepare` wrote.
        """
        record = self.records[scene_id]
        self.check_files(scene_id)
        return load_scene(self.root, record if frame_ids is None else record.of_frames(frame_ids), depth=depth)

    def color(self, scene_id: str, frame_id: str) -> NDArray[np.uint8]:
        """One colour image uint8 (H,W,3) of a scene. FrameError as ``load``."""
        self.check_files(scene_id)
        return read_color(self.root / scene_id / f"{frame_id}.jpg", self.records[scene_id].image_size)

    def check_files(self, scene_id: str) -> None:
        """FrameError unless a scene's files are those that `prepare` wrote. Read once for each state of the files."""
        record, folder = self.records[scene_id], self.root / scene_id
        try:
            state = tuple(sorted((entry.name, *file_stamp(Path(entry.path))) for entry in os.scandir(folder)))
            if self._checked.get(scene_id) == state:
                return
            right = scene_checksum(folder, record.frame_ids) == record.checksum
        except PermissionError:  # no fault of the files: making them again is no fix
            raise
        except OSError as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise FrameError(f"frame file {error.filename} {what}", fix=f"snakemake --cores all -f {self.path}") from None
        if not right:
            load_scene(self.root, record)  # names the file, where one cannot be decoded any more
            raise FrameError(
                f"files of scene {scene_id!r} are damaged: they are not those that `prepare` wrote",
                where=str(folder),
                fix=f"snakemake --cores all -f {self.path}   (makes this scene again, keeps the others)",
            )
        self._checked[scene_id] = state

    def __iter__(self) -> Iterator[SceneRecord]:
        return iter(self.records.values())


def _open_image(path: Path) -> NDArray[Any]:
    try:
        with Image.open(path) as image:
            refuse_turned(image, str(path))
            return np.asarray(image)
    except FileNotFoundError:
        raise FrameError(f"frame file {path} is missing", fix="run the rule `prepare` again with -f") from None
    except NO_IMAGE as error:
        raise FrameError(f"frame file {path} cannot be read ({error})", fix="delete it and run `prepare` again") from None


def read_color(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Colour image uint8 (H,W,3); ``size`` (H,W) is enforced when given."""
    image = _open_image(path)
    if image.ndim != 3 or image.shape[2] < 3 or (size is not None and image.shape[:2] != size):
        raise FrameError(f"colour frame {path} has shape {image.shape}", allowed=f"{size or '(H, W)'} with 3 channels")
    return np.ascontiguousarray(image[..., :3], dtype=np.uint8)


def read_depth(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Depth in metres float32 (H,W), 0 = invalid, from a uint16 millimetre PNG."""
    image = _open_image(path)
    if image.ndim != 2 or (size is not None and image.shape != size):
        raise FrameError(f"depth frame {path} has shape {image.shape}", allowed=f"{size or '(H, W)'}, one channel")
    return image.astype(np.float32) / np.float32(DEPTH_UNIT_PER_M)


def load_scene(root: Path, record: SceneRecord, *, depth: bool = True) -> Scene:
    """Read colour and depth of every frame of ``record`` in its order. Without ``depth`` no depth file is opened and no depth
    is valid (zeros that take no memory)."""
    folder = root / record.scene_id
    rgb = np.stack([read_color(folder / f"{f}.jpg", record.image_size) for f in record.frame_ids])
    if depth:
        depth_m = np.stack([read_depth(folder / f"{f}.png", record.depth_size) for f in record.frame_ids])
    else:
        depth_m = np.broadcast_to(np.float32(0), (len(rgb), *record.depth_size))
    return Scene(record=record, rgb=rgb, depth_m=depth_m)
