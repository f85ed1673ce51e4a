"""Convert one external scene to the posed RGB-D layout: choose frames, convert units and poses, count what is dropped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError, FrameError
from pipeline.core.provenance import digest, file_stamp
from pipeline.datasets.posed_rgbd.align import Gravity, floor_height, level
from pipeline.datasets.posed_rgbd.cameras import cameras_of, turned_down
from pipeline.datasets.posed_rgbd.convention import Listing, Pinhole, ReadOptions, SourceFrame
from pipeline.datasets.posed_rgbd.depth import DepthCode
from pipeline.datasets.posed_rgbd.detect import Scan
from pipeline.datasets.posed_rgbd.poses import read_matrix, usable_pose
from pipeline.scenes.conventions import DEPTH_UNIT_PER_M
from pipeline.scenes.frames import FrameOptions, sample_frames, seen_voxels
from pipeline.scenes.geometry import unproject
from pipeline.scenes.source_images import Exif, image_size, opened, orientation, upright
from pipeline.scenes.types import SceneRecord
from pipeline.scenes.writer import ScenePlace, SceneWriter, jpeg_bytes


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Options of a conversion; None leaves it to the convention or the scene's files. See datasets/posed_rgbd.py."""

    read: ReadOptions
    frames: FrameOptions
    depth: DepthCode
    camera: Pinhole | None = None
    depth_camera: Pinhole | None = None
    gravity: Gravity = "none"
    matrix: NDArray[np.float64] | None = None
    matrix_file: str | None = None
    exif: Exif = "refuse"


@dataclass(frozen=True, slots=True)
class _Views:
    """Usable frames of a scene (poses (F,4,4) aligned) and their cameras; ``y_up``: y was turned (cameras.py)."""

    frames: tuple[SourceFrame, ...]
    poses: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    image_size: tuple[int, int]
    depth_size: tuple[int, int]
    y_up: bool


@dataclass(frozen=True, slots=True)
class Converted:
    """A scene's record (no objects), what was dropped, and whether its files were written or there already.

    ``facts``: ``frames`` (listed), ``without_pose``, ``incomplete`` (files without partner), ``used``, ``covered`` (share of
    voxels, max_coverage), ``alignment`` (4x4, aligned from source), ``y_up`` (y of camera and world was turned first).
    """

    record: SceneRecord
    facts: dict[str, Any]
    written: bool


def convert_scan(scan: Scan, folder: Path, options: ConvertOptions, *, split: str, threads: int = 1) -> Converted:
    """Write a scene to ``folder`` unless it is there. Raises FrameError or DataError that name the source."""
    listing = scan.convention.read(scan.folder, options.read)
    views, alignment = _views(scan, listing, options)
    depth = options.depth
    place = ScenePlace(folder, split, _fingerprint(views, options))
    there = place.finished()
    if there is not None:
        return Converted(*there, written=False)

    def seen(i: int) -> NDArray[np.int64]:
        measured = _metres(depth.read_mm(views.frames[i].depth, views.depth_size))
        return seen_voxels(measured, views.depth_intrinsics, views.poses[i], options.frames.voxel_m)

    chosen = sample_frames(len(views.frames), options.frames, seen, where=str(scan.folder))
    kept = replace(views, frames=tuple(views.frames[i] for i in chosen.indices), poses=views.poses[list(chosen.indices)])
    if options.gravity == "trajectory":
        kept, alignment = _on_the_floor(kept, alignment, depth)
    facts: dict[str, Any] = {
        "frames": len(listing.frames),
        "without_pose": len(listing.frames) - len(views.frames),
        "incomplete": listing.incomplete,
        "used": len(kept.frames),
        "covered": chosen.covered,
        "alignment": alignment.tolist(),
        "y_up": kept.y_up,
    }
    names = [frame.frame_id for frame in kept.frames]
    writer = SceneWriter(place, names, kept.poses, kept.intrinsics, kept.depth_intrinsics, source=str(scan.folder))
    _write_frames(writer, kept, depth, options.exif, threads)
    return Converted(writer.finish(facts=facts), facts, written=True)


def _views(scan: Scan, listing: Listing, options: ConvertOptions) -> tuple[_Views, NDArray[np.float64]]:
    """Usable frames with aligned poses and cameras, and the alignment (4,4)."""
    where = str(scan.folder)
    usable = [(frame, frame.world_from_camera) for frame in listing.frames if frame.world_from_camera is not None]
    if not usable:
        cause = f": {listing.cause}" if listing.cause else ""
        raise FrameError(
            f"none of the {len(listing.frames)} frames has a usable pose ({listing.incomplete} files have no partner){cause}",
            where=where,
            fix=listing.fix,
        )
    frames = tuple(frame for frame, _ in usable)
    twice = len(frames) - len({frame.frame_id for frame in frames})
    if twice:
        raise DataError(f"{twice} frames have the name of another frame", where=where)
    poses = np.stack([pose for _, pose in usable])
    first = frames[0]
    sizes = image_size(first.colour, str(first.colour), options.exif), image_size(first.depth, str(first.depth))
    stated = options.camera, options.depth_camera
    cameras = cameras_of(scan.folder, scan.convention, listing, stated, sizes, options.read.camera_file)
    poses = turned_down(poses) if cameras.y_up else poses
    alignment = _alignment(scan, options, poses)
    return _Views(frames, alignment @ poses, cameras.colour, cameras.depth, *sizes, cameras.y_up), alignment


def _alignment(scan: Scan, options: ConvertOptions, poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Aligned from source (4,4)."""
    if options.gravity == "trajectory":
        return level(poses, where=str(scan.folder))
    if options.gravity == "none":
        return np.eye(4)
    if options.matrix is not None:
        return options.matrix
    path = scan.folder / str(options.matrix_file)
    matrix = usable_pose(read_matrix(path))
    if matrix is None:
        raise DataError(f"{path} is no rotation with translation", allowed="a rigid 4x4 matrix, aligned from source, metres")
    return matrix


def _fingerprint(views: _Views, options: ConvertOptions) -> str:
    """Digest of what the scene is made from: names, sizes and times of files, poses, cameras, options."""
    depth = options.depth
    files = [[f.frame_id, file_stamp(f.colour), file_stamp(f.depth)] for f in views.frames]
    return digest(
        {
            "files": files,
            "poses": np.round(views.poses, 9).tolist(),
            "cameras": [views.intrinsics.tolist(), views.depth_intrinsics.tolist()],
            "depth": [depth.unit_per_m, list(depth.invalid), depth.code, depth.max_m],
            "frames": options.frames.model_dump(mode="json"),
            "gravity": options.gravity,
            "exif": options.exif,
        }
    )


def _metres(depth_mm: NDArray[np.uint16]) -> NDArray[np.float32]:
    return depth_mm.astype(np.float32) / np.float32(DEPTH_UNIT_PER_M)


def _write_frames(writer: SceneWriter, views: _Views, depth: DepthCode, exif: Exif, threads: int) -> None:
    """All frames of a scene, in parallel (the image codecs release the interpreter's lock)."""

    def one(view: int) -> None:
        frame = views.frames[view]
        colour, depth_mm = _colour(frame.colour, views.image_size, exif), depth.read_mm(frame.depth, views.depth_size)
        writer.frame(view, colour, depth_mm)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(one, range(len(views.frames))))


def _on_the_floor(views: _Views, alignment: NDArray[np.float64], depth: DepthCode) -> tuple[_Views, NDArray[np.float64]]:
    """Views and alignment (4,4) with the floor, as far as the views see it, moved to z = 0."""
    heights = [_heights(frame, depth, views, pose) for frame, pose in zip(views.frames, views.poses, strict=True)]
    down = np.eye(4)
    down[2, 3] = -floor_height(np.concatenate(heights))
    return replace(views, poses=down @ views.poses), down @ alignment


def _heights(frame: SourceFrame, depth: DepthCode, views: _Views, pose: NDArray[np.float64]) -> NDArray[np.float32]:
    """Heights (N,) in metres of every eighth pixel's point."""
    step = 8
    camera = views.depth_intrinsics.copy()
    camera[:2] /= step
    measured = _metres(depth.read_mm(frame.depth, views.depth_size)[::step, ::step])
    points, valid = unproject(measured[None], camera, pose[None])
    return np.asarray(points[valid][:, 2])


def _colour(path: Path, size: tuple[int, int], exif: Exif) -> bytes:
    """JPEG bytes of a picture: the file itself when it is an upright one, else encoded. FrameError for another size or grey."""
    jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    channels = (3,) if jpeg else (3, 4)  # a JPEG of four is CMYK; a PNG of four has transparency, which is dropped
    with opened(path, str(path)) as stored:
        image, as_stored = np.asarray(upright(stored, str(path), exif)), orientation(stored) == 1
    if image.ndim != 3 or image.shape[2] not in channels or image.shape[:2] != size or image.dtype != np.uint8:
        raise FrameError(
            f"colour image {path} has shape {image.shape} and type {image.dtype}",
            allowed=f"{size} with 3 channels of 8 bits, as in the scene's first picture",
        )
    if jpeg and as_stored:
        return path.read_bytes()
    return jpeg_bytes(np.ascontiguousarray(image[..., :3]).astype(np.uint8, copy=False))
