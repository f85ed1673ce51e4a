"""One scan to one scene folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import DataError, FrameError
from pipeline.datasets.scannet.frames import FolderFrames, ScanFrames, StreamFrames
from pipeline.datasets.scannet.instances import Instances, aligned, is_rigid, read_alignment, read_instances
from pipeline.datasets.scannet.labels import Labels
from pipeline.datasets.scannet.mesh import read_vertices
from pipeline.datasets.scannet.proposals import BoxFile, mask_boxes
from pipeline.datasets.scannet.sources import Places, Stamps, unchanged
from pipeline.scenes.conventions import DEPTH_UNIT_PER_M
from pipeline.scenes.frames import FrameOptions, sample_frames, seen_voxels
from pipeline.scenes.source_images import opened, refuse_turned
from pipeline.scenes.types import SceneRecord
from pipeline.scenes.writer import ScenePlace, SceneWriter, jpeg_bytes


@dataclass(frozen=True, slots=True)
class Release:
    """The rules by which scenes are made of a release; the same for every scene.

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
    """One scene to make: where it goes, ``sources`` what it is made of now, ``missing`` the source files that are not there."""

    place: ScenePlace
    sources: Stamps
    missing: tuple[Path, ...]

    @property
    def scene_id(self) -> str:
        return self.place.scene_id


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of what was left out of a scene: frames without a valid pose (of ``frames`` candidates), empty masks, unknown
    names; and whether its world is ``aligned`` with the walls (otherwise the release states no alignment).
    """

    frames: int
    invalid_poses: int
    empty_masks: int
    unknown_labels: tuple[str, ...]
    aligned: bool


def make_scene(job: SceneJob, release: Release) -> tuple[SceneRecord, Counts]:
    """Write one scene's folder. DataError/FrameError name the file that is at fault."""
    source = release.places.scans / job.scene_id
    stated = read_alignment(source / f"{job.scene_id}.txt")
    alignment = np.eye(4) if stated is None else stated
    instances, proposals, empty = _objects(job, release, alignment)
    with _open_frames(job.scene_id, release) as frames:
        usable = [i for i, pose in enumerate(frames.poses) if is_rigid(pose)]
        if not usable:
            raise FrameError(f"none of {len(frames.ids)} frames has a valid pose", where=frames.where, fix="leave the scan out")
        poses = alignment @ frames.poses[usable]
        chosen = list(_choose(frames, usable, poses, release.frames))
        numbers = [usable[i] for i in chosen]
        size = release.image_size or frames.image_size
        writer = SceneWriter(
            job.place,
            [frames.ids[number] for number in numbers],
            poses[chosen],
            _resized_camera(frames.intrinsics, frames.image_size, size),
            frames.depth_intrinsics,
            source=frames.where,
        )
        for view, number in enumerate(numbers):
            where = f"{frames.where}, frame {frames.ids[number]}"
            colour = _color(frames.color(number), frames.image_size, size, where)
            writer.frame(view, colour, frames.depth_mm(number))
        counts = Counts(len(frames.ids), len(frames.ids) - len(usable), empty, instances.unknown, stated is not None)
        facts = {"sources": dict(job.sources), "counts": asdict(counts)}
        return writer.finish(instances.objects, proposals, facts), counts


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
    scene, split, places = job.scene_id, job.place.split, release.places
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
    """Return which of the usable frames become views."""

    def seen(number: int) -> NDArray[np.int64]:
        depth_m = frames.depth_mm(usable[number]).astype(np.float32) / np.float32(DEPTH_UNIT_PER_M)
        return seen_voxels(depth_m, frames.depth_intrinsics, poses[number], options.voxel_m)

    return sample_frames(len(usable), options, seen, where=frames.where).indices


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
        return jpeg_bytes(np.asarray(image.convert("RGB").resize((wanted[1], wanted[0]), Image.Resampling.BICUBIC)))


def _resized_camera(camera: NDArray[np.float64], size: tuple[int, int], wanted: tuple[int, int]) -> NDArray[np.float64]:
    """Intrinsics of the resized image; pixel (u, v) is its own centre, so the principal point moves by half-pixels."""
    scaled = camera.copy()
    for axis, ratio in ((0, wanted[1] / size[1]), (1, wanted[0] / size[0])):
        scaled[axis] *= ratio
        scaled[axis, 2] = (camera[axis, 2] + 0.5) * ratio - 0.5
    return scaled


def read_scene(job: SceneJob) -> tuple[SceneRecord, Counts] | None:
    """Record and counts of a finished scene; None when it has to be made, or when its source files have changed."""
    found = job.place.finished()
    if found is None or not unchanged(found[1]["sources"], job.sources):
        return None
    counts = found[1]["counts"]
    return found[0], Counts(**(counts | {"unknown_labels": tuple(counts["unknown_labels"])}))
