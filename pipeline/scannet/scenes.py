"""One scan to one scene folder of the posed RGB-D layout, with a marker written last: a scene is whole or it is made again."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.conventions import DEPTH_UNIT_PER_M
from pipeline.depth_quality import looked_at
from pipeline.errors import DataError, FrameError
from pipeline.frames import FrameOptions, sample_frames, seen_voxels
from pipeline.index import files_checksum, record_from_json, record_to_json, scene_checksum, with_depth_of_files
from pipeline.png import depth_png
from pipeline.provenance import write_atomic
from pipeline.scannet.frames import FolderFrames, ScanFrames, StreamFrames
from pipeline.scannet.instances import Instances, aligned, is_rigid, read_alignment, read_instances
from pipeline.scannet.labels import Labels
from pipeline.scannet.mesh import read_vertices
from pipeline.scannet.proposals import BoxFile, mask_boxes
from pipeline.scannet.sources import Places, Stamps, unchanged
from pipeline.scene import SceneRecord
from pipeline.source_images import opened, refuse_turned

MARKER = "scene.json"
JPEG_QUALITY = 95
"""Of resized colour images; others are kept byte by byte."""


@dataclass(frozen=True, slots=True)
class Release:
    """How scenes are made of a release; the same for every scene.

    ``boxes``: the file of proposals, where they come from one. ``listed``: frame ids per scan, None to choose among all
    frames. ``step``: every how many frames of a stream is a candidate. ``image_size`` (height, width), None to keep.
    """

    places: Places
    labels: Labels
    max_masks: int
    boxes: BoxFile | None
    listed: dict[str, tuple[str, ...]] | None
    step: int
    frames: FrameOptions
    image_size: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class SceneJob:
    """One scene to make: ``folder`` is its own, ``spec`` the digest of options and code, ``sources`` what it is made of now,
    ``missing`` the source files that are not there."""

    scene_id: str
    split: str
    folder: Path
    spec: str
    sources: Stamps
    missing: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What was left out of a scene: frames without a valid pose (of ``frames`` candidates), empty masks, unknown names; and
    whether its world is ``aligned`` with the walls (otherwise the release states no alignment)."""

    frames: int
    invalid_poses: int
    empty_masks: int
    unknown_labels: tuple[str, ...]
    aligned: bool


@dataclass(frozen=True, slots=True)
class Views:
    """What becomes of the chosen frames: their ``numbers`` among the candidates, aligned ``poses`` (V,4,4), and the
    ``intrinsics`` (3,3) and ``size`` (height, width) of the stored colour images."""

    numbers: tuple[int, ...]
    poses: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    size: tuple[int, int]


def make_scene(job: SceneJob, release: Release) -> None:
    """Write one scene's folder; the marker comes last. DataError/FrameError name the file that is at fault."""
    source = release.places.scans / job.scene_id
    stated = read_alignment(source / f"{job.scene_id}.txt")
    alignment = np.eye(4) if stated is None else stated
    instances, proposals, empty = _objects(job, release, alignment)
    with _open_frames(job.scene_id, release) as frames:
        usable = [i for i, pose in enumerate(frames.poses) if is_rigid(pose)]
        if not usable:
            raise FrameError(f"none of {len(frames.ids)} frames has a valid pose", where=frames.where, fix="leave the scan out")
        poses = alignment @ frames.poses[usable]
        chosen = _choose(frames, usable, poses, release.frames)
        size = release.image_size or frames.image_size
        views = Views(
            tuple(usable[i] for i in chosen),
            poses[list(chosen)],
            _resized_camera(frames.intrinsics, frames.image_size, size),
            size,
        )
        depth: dict[int, NDArray[np.uint16]] = {}
        record = SceneRecord(
            scene_id=job.scene_id,
            split=job.split,
            frame_ids=tuple(frames.ids[number] for number in views.numbers),
            world_from_camera=views.poses,
            intrinsics=views.intrinsics,
            depth_intrinsics=frames.depth_intrinsics,
            image_size=size,
            depth_size=frames.depth_size,
            objects=instances.objects,
            proposals=proposals,
            checksum=_write_files(job.folder, _files(frames, views, depth)),
        )
        record = with_depth_of_files(job.folder, record, where=frames.where, known=depth)
        counts = Counts(len(frames.ids), len(frames.ids) - len(usable), empty, instances.unknown, stated is not None)
    _write_marker(job, record, counts)


def _open_frames(scene: str, release: Release) -> ScanFrames:
    listed = None
    if release.listed is not None:
        if scene not in release.listed:
            raise DataError("the frame lists do not have this scan", where=scene, fix="add its file to the option frame_lists")
        listed = release.listed[scene]
    path = release.places.frames(scene)
    return StreamFrames(path, step=release.step, listed=listed) if path.suffix == ".sens" else FolderFrames(path, listed=listed)


def _objects(
    job: SceneJob, release: Release, alignment: NDArray[np.float64]
) -> tuple[Instances, NDArray[np.float64] | None, int]:
    """Objects, proposals (None: ground truth) and the number of empty masks. Scans of the split test have no objects."""
    scene, split, places = job.scene_id, job.split, release.places
    annotated, masks = places.annotated(scene, split), places.mask_file(scene, split)
    instances, proposals, empty = Instances(()), None, 0
    if annotated or masks is not None:
        source = places.scans / scene
        vertices = aligned(read_vertices(source / f"{scene}_vh_clean_2.ply"), alignment)
        instances = read_instances(source, scene, vertices, release.labels) if annotated else instances
        if masks is not None:
            proposals, empty = mask_boxes(masks, vertices, release.max_masks)
    if release.boxes is not None and split != "train":
        proposals = release.boxes.boxes(scene)
    return instances, proposals, empty


def _choose(frames: ScanFrames, usable: list[int], poses: NDArray[np.float64], options: FrameOptions) -> tuple[int, ...]:
    """Which of the usable frames become views."""

    def seen(number: int) -> NDArray[np.int64]:
        depth_m = frames.depth_mm(usable[number]).astype(np.float32) / np.float32(DEPTH_UNIT_PER_M)
        return seen_voxels(depth_m, frames.depth_intrinsics, poses[number], options.voxel_m)

    return sample_frames(len(usable), options, seen, where=frames.where).indices


def _files(frames: ScanFrames, views: Views, depth: dict[int, NDArray[np.uint16]]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the scene's files, one after the other; ``depth`` keeps that of the views that are looked at."""
    yield "intrinsic.txt", _matrix_text(_square(views.intrinsics))
    yield "depth_intrinsic.txt", _matrix_text(_square(frames.depth_intrinsics))
    kept = looked_at(len(views.numbers))
    for view, (number, pose) in enumerate(zip(views.numbers, views.poses, strict=True)):
        name = frames.ids[number]
        where = f"{frames.where}, frame {name}"
        yield f"{name}.jpg", _color(frames.color(number), frames.image_size, views.size, where)
        depth_mm = frames.depth_mm(number)
        if view in kept:
            depth[view] = depth_mm
        yield f"{name}.png", depth_png(depth_mm)
        yield f"{name}.txt", _matrix_text(pose)


def _color(data: bytes, size: tuple[int, int], wanted: tuple[int, int], where: str) -> bytes:
    """The JPEG as it is after a check that it decodes, or resized."""
    with opened(data, where) as image:
        if (image.height, image.width) != size:
            found = f"({image.height}, {image.width})"
            raise FrameError(f"a colour frame is {found} pixels", where=where, allowed=f"{size} as the others")
        refuse_turned(image, where)
        image.load()
        if image.format == "JPEG" and image.mode == "RGB" and size == wanted:
            return data
        resized = image.convert("RGB").resize((wanted[1], wanted[0]), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    resized.save(stream, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def _resized_camera(camera: NDArray[np.float64], size: tuple[int, int], wanted: tuple[int, int]) -> NDArray[np.float64]:
    """Intrinsics of the resized image; pixel (u, v) is its own centre, so the principal point moves by half-pixels."""
    scaled = camera.copy()
    for axis, ratio in ((0, wanted[1] / size[1]), (1, wanted[0] / size[0])):
        scaled[axis] *= ratio
        scaled[axis, 2] = (camera[axis, 2] + 0.5) * ratio - 0.5
    return scaled


def _square(camera: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = camera
    return matrix


def _matrix_text(matrix: NDArray[np.float64]) -> bytes:
    return "".join(" ".join(f"{v:.7f}" for v in row) + "\n" for row in matrix).encode()


def _write_files(folder: Path, files: Iterator[tuple[str, bytes]]) -> str:
    """Write a scene's files into an empty folder as they come; the checksum over all of them."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    hashes = {}
    for name, data in files:
        (folder / name).write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    return files_checksum(hashes)


def _write_marker(job: SceneJob, record: SceneRecord, counts: Counts) -> None:
    marker = {"spec": job.spec, "sources": dict(job.sources), "record": record_to_json(record), "counts": asdict(counts)}
    # No fsync: a marker that survives a power cut without its files is found out by the checksum.
    write_atomic(job.folder / MARKER, json.dumps(marker, sort_keys=True, separators=(",", ":")) + "\n", durable=False)


def read_scene(job: SceneJob) -> tuple[SceneRecord, Counts] | None:
    """Record and counts of a finished scene; None when it is not there, not whole, of another specification, or when its
    source files have changed."""
    path = job.folder / MARKER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["spec"] == job.spec and content["record"]["split"] == job.split
        if not known or not unchanged(content["sources"], job.sources):
            return None
        record = record_from_json(content["record"], where=str(path))
        found = content["counts"]
        counts = Counts(**(found | {"unknown_labels": tuple(found["unknown_labels"])}))
        checksum = scene_checksum(job.folder, record.frame_ids)
    except (OSError, KeyError, TypeError, ValueError, DataError):
        return None
    return (record, counts) if record.checksum == checksum else None
