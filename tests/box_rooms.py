"""Empty box-shaped rooms with analytic depth: scenes for tests that need true geometry and no renderer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.core.provenance import seed_for
from pipeline.scenes.index import SceneIndex, write_index
from pipeline.scenes.types import Scene, SceneRecord
from pipeline.scenes.writer import ScenePlace, SceneWriter

ROOM_M = np.array([4.0, 5.0, 2.5])
FACE_COLORS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60], [120, 80, 40], [240, 240, 240]])


def camera(position: np.ndarray, heading: float, pitch: float) -> np.ndarray:
    """world_from_camera (4,4) of a camera that looks along ``heading`` (radians from x), ``pitch`` radians downwards."""
    forward = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def render(pose: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Colour uint8 (H,W,3) and depth float32 (H,W) of the room seen from inside."""
    v, u = np.mgrid[0 : size[0], 0 : size[1]]
    rays = np.stack([(u - intrinsics[0, 2]) / intrinsics[0, 0], (v - intrinsics[1, 2]) / intrinsics[1, 1], np.ones_like(u)], -1)
    world = rays @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        to_high = np.where(world > 0, (ROOM_M - pose[:3, 3]) / world, np.inf)
        to_low = np.where(world < 0, -pose[:3, 3] / world, np.inf)
    faces = np.concatenate([to_low, to_high], axis=-1)
    depth = faces.min(-1).astype(np.float32)
    return FACE_COLORS[faces.argmin(-1)].astype(np.uint8), depth


def make_scene(scene_id: str = "box0", *, views: int = 4, size: tuple[int, int] = (96, 128), split: str = "train") -> Scene:
    """A scene of one room; the same id gives the same scene. A patch of depth is invalid in every view."""
    random = np.random.default_rng(seed_for("box", scene_id))
    intrinsics = np.array([[0.9 * size[1], 0, (size[1] - 1) / 2], [0, 0.9 * size[1], (size[0] - 1) / 2], [0, 0, 1.0]])
    start, heading = random.uniform([1, 1, 1.2], [3, 4, 1.7]), random.uniform(0, 2 * np.pi)
    poses = np.stack([camera(start + random.normal(0, 0.1, 3), heading + 0.4 * v, 0.3) for v in range(views)])
    pictures = [render(pose, intrinsics, size) for pose in poses]
    depth = np.stack([d for _, d in pictures])
    depth[:, : size[0] // 6, : size[1] // 8] = 0
    record = SceneRecord(
        scene_id=scene_id,
        split=split,
        frame_ids=tuple(f"{10 * v:05d}" for v in range(views)),
        world_from_camera=poses,
        intrinsics=intrinsics,
        depth_intrinsics=intrinsics.copy(),
        image_size=size,
        depth_size=size,
        objects=(),
        proposals=None,
        checksum=scene_id,
    )
    return Scene(record, np.stack([c for c, _ in pictures]), depth)


def write_scene(root: Path, scene: Scene) -> SceneRecord:
    """The files of a scene below ``root``; its record with their checksum."""
    record = scene.record
    place = ScenePlace(root / record.scene_id, record.split, "")
    writer = SceneWriter(place, record.frame_ids, record.world_from_camera, record.intrinsics, record.depth_intrinsics)
    for view, (rgb, depth) in enumerate(zip(scene.rgb, scene.depth_m, strict=True)):
        writer.frame(view, rgb, (depth * 1000).round().astype(np.uint16))
    return writer.finish(record.objects, record.proposals)


def write_dataset(folder: Path, scenes: list[Scene], dataset: str = "boxes") -> SceneIndex:
    """Scenes as a prepared dataset on disk."""
    records = [write_scene(folder / "posed_images", scene) for scene in scenes]
    write_index(folder, records, dataset=dataset, root="posed_images", annotations={}, spec="")
    return SceneIndex(folder / "manifest.json")
