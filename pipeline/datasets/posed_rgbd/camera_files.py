"""Camera files beside a scene's frames: Open3D's JSON, or a matrix as text (3DMatch, tsdf-fusion: camera-intrinsics.txt)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.datasets.posed_rgbd.poses import number, read_text

_LIKE_A_CAMERA = re.compile(r"camera|intrinsic|calib|^_info\.txt$", re.IGNORECASE)
_OF_SOMETHING_ELSE = re.compile(r"pose|traj|extrinsic|depth", re.IGNORECASE)
_READ = (".json", ".txt")
_NOT_READ = (".yaml", ".yml", ".xml", ".ini", ".cfg", ".conf")
_ALLOWED = '{"width": .., "height": .., "intrinsic_matrix": [9 numbers by columns]} or, as text, a matrix 3x3 or 4x4 by rows'
_MEND = "name the right one with the option camera_file, or give intrinsics: [fx, fy, cx, cy]"


def find_camera(folder: Path) -> Path | None:
    """The one file of the scene's folder, or else of the one above it, that by its name holds a camera; None without one.

    DataError when there are several, or only such that cannot be read: a camera that lies there is never passed over.
    """
    for place in (folder, folder.parent):
        named = [p for p in place.iterdir() if _LIKE_A_CAMERA.search(p.name) and not _OF_SOMETHING_ELSE.search(p.name)]
        named = [path for path in sorted(named) if path.is_file()]
        found = [path for path in named if path.suffix.lower() in _READ]
        if found:
            return only(found, "camera file", place, "camera_file")
        unread = [path for path in named if path.suffix.lower() in _NOT_READ]
        if unread:
            raise DataError(f"camera file {unread[0]} is of a kind that is not read", allowed=_ALLOWED, fix=_MEND)
    return None


def named_camera(folder: Path, name: str) -> Path:
    """The camera file of this name in the scene's folder, or in the one above it."""
    return folder / name if (folder / name).exists() or not (folder.parent / name).exists() else folder.parent / name


def only(found: Iterable[Path], what: str, folder: Path, option: str = "") -> Path:
    """The only one; DataError that lists all when there are several or none."""
    paths = list(found)
    if len(paths) == 1:
        return paths[0]
    names = ", ".join(path.name for path in paths) or "(none)"
    fix = f"name one with the option `{option}`" if option else "keep one of them"
    raise DataError(f"{len(paths)} candidates for the {what}: {names}", where=str(folder), fix=fix)


def read_camera(path: Path) -> tuple[tuple[int, int] | None, NDArray[np.float64]]:
    """Size (height, width) of the images, where it is stated, and intrinsics (3,3) of a camera file."""
    text = read_text(path)
    try:
        if path.suffix.lower() != ".json":
            return None, _matrix(text)
        content: Any = json.loads(text)
        values = np.asarray(content["intrinsic_matrix"], dtype=np.float64).reshape(3, 3, order="F")
        size = (int(content["height"]), int(content["width"])) if {"height", "width"} <= set(content) else None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"camera file {path} cannot be read ({error!r})", allowed=_ALLOWED, fix=_MEND) from None
    return size, values


def _matrix(text: str) -> NDArray[np.float64]:
    values = np.array([number(word) for word in text.replace(",", " ").split()])
    if values.size not in (9, 16):
        raise ValueError(f"{values.size} numbers")
    side = 3 if values.size == 9 else 4
    matrix = values.reshape(side, side)
    if not np.isfinite(matrix).all() or np.abs(matrix[2, :3] - (0, 0, 1)).max() > 0:
        raise ValueError("the third row is not 0 0 1")
    return matrix[:3, :3]
