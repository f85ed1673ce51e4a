"""Scenes of box-shaped rooms written in the conventions of others: what pipeline/datasets/posed_rgbd reads in tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from box_rooms import make_scene
from PIL import Image
from scipy.spatial.transform import Rotation

from pipeline.scenes.types import Scene

START_S = 1305031102.175304


def conformance_sources(folder: Path) -> dict[str, Any]:
    """A TUM and a Redwood scene in one folder, and the options that point to them."""
    write_tum(folder / "desk", make_scene("desk"))
    write_redwood(folder / "office" / "part1", make_scene("office"))
    return {
        "root": str(folder),
        "intrinsics": pinhole(make_scene("desk")),
        "splits": {"val": ["desk"], "test": ["office_part1"]},
    }


def pinhole(scene: Scene) -> list[float]:
    """fx, fy, cx, cy of a scene."""
    camera = scene.record.intrinsics
    return [float(camera[0, 0]), float(camera[1, 1]), float(camera[0, 2]), float(camera[1, 2])]


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))


def stored(depth_m: np.ndarray, unit_per_m: float) -> np.ndarray:
    """Depth as whole units, uint16."""
    return np.round(depth_m.astype(np.float64) * unit_per_m).astype(np.uint16)


def text_of(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(repr(float(v)) for v in row) for row in matrix) + "\n"


def write_tum(folder: Path, scene: Scene, *, no_pose: Iterable[int] = ()) -> None:
    """rgb.txt, depth.txt, groundtruth.txt; depth 11 ms after colour, poses every 10 ms, four decimals as in the original."""
    lines: dict[str, list[str]] = {"rgb": ["# color images"], "depth": ["# depth maps"], "groundtruth": ["# ground truth"]}
    for view, pose in enumerate(scene.record.world_from_camera):
        time = START_S + 0.5 * view
        for kind, stamp, image in (("rgb", time, scene.rgb[view]), ("depth", time + 0.011, stored(scene.depth_m[view], 5000))):
            save(folder / kind / f"{stamp:.6f}.png", image)
            lines[kind].append(f"{stamp:.6f} {kind}/{stamp:.6f}.png")
        if view in no_pose:
            continue
        for step in (-2, -1, 0, 1, 2):
            moved = pose[:3, 3] + 0.01 * step
            numbers = (*moved, *Rotation.from_matrix(pose[:3, :3]).as_quat())
            lines["groundtruth"].append(f"{time + 0.01 * step + 0.001:.4f} " + " ".join(f"{n:.4f}" for n in numbers))
    for name, content in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(content) + "\n")


def write_seven_scenes(folder: Path, scene: Scene) -> None:
    """frame-XXXXXX.color.png, .depth.png (invalid 65535), .pose.txt."""
    for view, pose in enumerate(scene.record.world_from_camera):
        depth = stored(scene.depth_m[view], 1000)
        save(folder / f"frame-{view:06d}.color.png", scene.rgb[view])
        save(folder / f"frame-{view:06d}.depth.png", np.where(depth == 0, 65535, depth).astype(np.uint16))
        rows = "\n".join("\t ".join(f"{v: .7e}" for v in row) for row in pose)
        (folder / f"frame-{view:06d}.pose.txt").write_text(rows + "\t \n")


def write_redwood(folder: Path, scene: Scene, *, camera: bool = True, names: str = "same") -> None:
    """color/, depth/, trajectory.log, camera.json. ``names`` other: colour and depth files are named differently."""
    log = []
    for view, pose in enumerate(scene.record.world_from_camera):
        save(folder / "color" / f"{view:05d}.jpg", scene.rgb[view])
        other = f"{view:05d}" if names == "same" else f"{view:05d}-{view * 33333:012d}"
        save(folder / "depth" / f"{other}.png", stored(scene.depth_m[view], 1000))
        log.append(f"{view} {view} {view + 1}\n{text_of(pose)}")
    (folder / "trajectory.log").write_text("".join(log))
    if camera:
        height, width = scene.record.image_size
        matrix = scene.record.intrinsics.T.ravel().tolist()
        (folder / "camera.json").write_text(json.dumps({"width": width, "height": height, "intrinsic_matrix": matrix}))


def write_scannet(folder: Path, scene: Scene, *, nested: bool = False, lost: Iterable[int] = ()) -> None:
    """posed_images (flat) or color/, depth/, pose/, intrinsic/; frames of ``lost`` have a pose of -inf."""
    square = np.eye(4)
    square[:3, :3] = scene.record.intrinsics
    at = {name: folder / name if nested else folder for name in ("color", "depth", "pose", "intrinsic")}
    for path in at.values():
        path.mkdir(parents=True, exist_ok=True)
    for view, pose in enumerate(scene.record.world_from_camera):
        name = f"{view * 10}" if nested else f"{view * 10:05d}"
        save(at["color"] / f"{name}.jpg", scene.rgb[view])
        save(at["depth"] / f"{name}.png", stored(scene.depth_m[view], 1000))
        (at["pose"] / f"{name}.txt").write_text(text_of(np.full((4, 4), -np.inf) if view in lost else pose))
    names = ("intrinsic_color.txt", "intrinsic_depth.txt") if nested else ("intrinsic.txt", "depth_intrinsic.txt")
    for name in names:
        (at["intrinsic"] / name).write_text(text_of(square))


def write_icl_nuim(folder: Path, scene: Scene, *, lists: bool = False, y_up: bool = False) -> None:
    """rgb/N.png, depth/N.png, associations.txt (and rgb.txt, depth.txt), livingRoom0.gt.freiburg; frame numbers for times.

    ``y_up``: poses as the dataset has them, camera and world with y the other way, which belongs to fy below 0.
    """
    mirror = np.diag([1.0, -1.0, 1.0, 1.0]) if y_up else np.eye(4)
    content: dict[str, list[str]] = {"associations.txt": [], "livingRoom0.gt.freiburg": []}
    content |= {"rgb.txt": [], "depth.txt": []} if lists else {}
    for view, pose in enumerate(scene.record.world_from_camera):
        save(folder / "rgb" / f"{view}.png", scene.rgb[view])
        save(folder / "depth" / f"{view}.png", stored(scene.depth_m[view], 5000))
        pose = mirror @ pose @ mirror
        numbers = (*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat())
        content["livingRoom0.gt.freiburg"].append(f"{view} " + " ".join(f"{n:.6f}" for n in numbers))
        content["associations.txt"].append(f"{view} depth/{view}.png {view} rgb/{view}.png")
        for kind in ("rgb", "depth") if lists else ():
            content[f"{kind}.txt"].append(f"{view} {kind}/{view}.png")
    for name, lines in content.items():
        (folder / name).write_text("\n".join(lines) + "\n")
