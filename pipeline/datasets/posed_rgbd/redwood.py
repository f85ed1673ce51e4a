"""Redwood and Open3D: folders of colour and depth images, a trajectory .log, and the camera as JSON of Open3D.

A .log holds five lines per frame: three whole numbers, the first being the frame's number from 0, and a 4x4 matrix, world from
camera. Which frame that is: frame_names.py. Depth is in millimetres. The camera is an Open3D pinhole camera
(``width``, ``height``, ``intrinsic_matrix`` by columns); without a file it is Open3D's default for PrimeSense sensors.
Source: Redwood's file format page and Open3D's documentation of trajectories and cameras.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.core.files import entries
from pipeline.datasets.posed_rgbd.camera_files import named_camera, only, read_camera
from pipeline.datasets.posed_rgbd.convention import Convention, Listing, Pinhole, ReadOptions, SourceFrame, images_in
from pipeline.datasets.posed_rgbd.frame_names import entries_of, pair
from pipeline.datasets.posed_rgbd.poses import number, read_text, usable_pose
from pipeline.datasets.posed_rgbd.tum import FREIBURG, listed
from pipeline.scenes.conventions import checked_id

COLOUR_FOLDERS = ("color", "rgb", "image", "images")
_ROWS = 5


class Redwood(Convention):
    """Redwood scans and the RGB-D folders of Open3D's reconstruction system."""

    name = "redwood"
    needs = f"a trajectory (*.log), depth/ and one of {', '.join(f + '/' for f in COLOUR_FOLDERS)}, perhaps camera*.json"
    depth_unit_per_m = 1000
    default_camera: ClassVar[Pinhole | None] = (525.0, 525.0, 319.5, 239.5)

    def matches(self, folder: Path, options: ReadOptions) -> bool:
        name = options.trajectory
        trajectory = bool(entries(folder, "*.log"))
        if name is not None:  # the folders of TUM and ICL-NUIM have the same names
            trajectory = (folder / name).is_file() and (
                name.endswith(".log") or not (listed(folder) or name.endswith(FREIBURG))
            )
        return trajectory and (folder / "depth").is_dir() and bool(_colour_folders(folder))

    def read(self, folder: Path, options: ReadOptions) -> Listing:
        colour = images_in(only(_colour_folders(folder), "folder of colour images", folder), (".jpg", ".jpeg", ".png"))
        depth = images_in(folder / "depth", (".png",))
        poses = read_log(_trajectory(folder, options.trajectory))
        found = pair(colour, depth, where=str(folder))
        entry = entries_of(found.numbers, poses, options.frame_numbers, where=str(folder))
        frames = []
        for frame in found.whole:
            frame_id = checked_id(frame.colour.stem, what="frame id", where=str(frame.colour.parent))
            frames.append(SourceFrame(frame_id, frame.colour, frame.depth, poses.get(entry[frame.number])))
        path = _camera_file(folder, options.camera_file)
        size, camera = (None, None) if path is None else read_camera(path)
        return Listing(tuple(frames), found.incomplete, size, camera)


def _colour_folders(folder: Path) -> list[Path]:
    return [folder / name for name in COLOUR_FOLDERS if (folder / name).is_dir()]


def _trajectory(folder: Path, name: str | None) -> Path:
    if name is not None:
        return folder / name
    usual = folder / "trajectory.log"
    return usual if usual.is_file() else only(entries(folder, "*.log"), "trajectory", folder, "trajectory")


def _camera_file(folder: Path, name: str | None) -> Path | None:
    """The camera's JSON in the scene's folder or the one above it; None when there is none."""
    if name is not None:
        return named_camera(folder, name)
    for place in (folder, folder.parent):
        found = sorted({*place.glob("camera*.json"), *place.glob("*intrinsic*.json")})
        if found:
            return only(found, "camera file", place, "camera_file")
    return None


def read_log(path: Path) -> dict[int, NDArray[np.float64] | None]:
    """Frame number -> world from camera (4,4), None where it is not usable. DataError names the line at fault."""
    text = read_text(path).splitlines()
    lines = [(i, line.split()) for i, line in enumerate(text, start=1) if line.strip()]
    if len(lines) % _ROWS:
        raise DataError(f"{len(lines)} lines are no multiple of {_ROWS}: the file is truncated", where=str(path))
    poses: dict[int, NDArray[np.float64] | None] = {}
    for start in range(0, len(lines), _ROWS):
        where = f"{path}, line {lines[start][0]}"
        frame, matrix = _entry([fields for _, fields in lines[start : start + _ROWS]], where)
        if frame in poses:
            raise DataError(f"frame {frame} comes twice", where=where)
        poses[frame] = usable_pose(matrix)
    return poses


def _entry(rows: list[list[str]], where: str) -> tuple[int, NDArray[np.float64]]:
    allowed = "three whole numbers, then four rows of four numbers"
    try:
        header = [int(field) for field in rows[0]]
        matrix = [[number(field) for field in row] for row in rows[1:]]
    except ValueError as error:
        raise DataError(f"an entry is malformed ({error})", where=where, allowed=allowed) from None
    if len(header) != 3 or header[0] < 0 or any(len(row) != 4 for row in matrix):
        raise DataError("an entry is malformed", where=where, allowed=allowed)
    if header[0] != header[1]:
        raise DataError(
            f"entry {header[0]} {header[1]} {header[2]} relates two frames: this is no trajectory",
            where=where,
            fix="name the trajectory with the option `trajectory`",
        )
    return header[0], np.array(matrix)
