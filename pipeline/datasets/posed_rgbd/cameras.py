"""The cameras of a scene: stated by an option, by the scene's files, or the convention's default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.datasets.posed_rgbd.camera_files import find_camera, named_camera, read_camera
from pipeline.datasets.posed_rgbd.convention import Convention, Listing, Pinhole, matrix_of

DEFAULT_SIZE = (480, 640)
"""Images (H,W) that the default cameras of conventions belong to."""

MIDDLE = 0.3
"""A camera of a file has its principal point this share of the size or more away from the edges; a camera of images of twice
the size has it in a corner's quarter."""
SAME_SHAPE = 1.05
"""Most that proportions of registered images differ by (ScanNet: 1296x968 and 640x480, 1.004)."""


@dataclass(frozen=True, slots=True)
class Cameras:
    """Intrinsics (3,3) of colour and depth images. ``y_up``: the files' camera has y upwards (fy below 0, ICL-NUIM), so poses
    must be turned as ``turned_down`` does; the intrinsics here are of the turned camera."""

    colour: NDArray[np.float64]
    depth: NDArray[np.float64]
    y_up: bool


def cameras_of(
    folder: Path,
    convention: Convention,
    listing: Listing,
    stated: tuple[Pinhole | None, Pinhole | None],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    camera_file: str | None = None,
) -> Cameras:
    """Cameras of colour and depth images of ``sizes`` (H,W); ``stated`` are the options for the two.

    Without an own camera, depth has the colour camera's at its own size (registered images). DataError when the camera is
    not known or does not belong to the images.
    """
    size, depth_size = sizes
    colour = _colour_camera(folder, convention, listing, stated[0], size, camera_file)
    if stated[1] is not None:
        depth = matrix_of(stated[1])
    elif listing.depth_intrinsics is not None:
        depth = listing.depth_intrinsics
    else:
        depth = resized(colour, size, _registered(size, depth_size, folder))
    for name, camera, pixels, told in (
        ("intrinsics", colour, size, stated[0]),
        ("depth_intrinsics", depth, depth_size, stated[1] or stated[0]),
    ):
        _check(name, camera, pixels, folder, MIDDLE if told is None else 0.0)
    if (colour[1, 1] < 0) != (depth[1, 1] < 0):
        raise DataError(
            f"fy of pictures is {colour[1, 1]:g}, of depth images {depth[1, 1]:g}: y of one points up, of the other down",
            where=str(folder),
            allowed="the same sign for both",
        )
    return Cameras(_y_down(colour), _y_down(depth), bool(colour[1, 1] < 0))


def _check(name: str, camera: NDArray[np.float64], size: tuple[int, int], folder: Path, margin: float) -> None:
    """DataError unless focal lengths are set and the principal point is inside, ``margin`` of the size away from the edges."""
    height, width = size
    x, y = camera[0, 2] / width, camera[1, 2] / height
    if not (camera[0, 0] > 0 and camera[1, 1] != 0 and margin < x < 1 - margin and margin < y < 1 - margin):
        raise DataError(
            f"{name} {camera[:2].tolist()} do not belong to images of {width}x{height} pixels",
            where=str(folder),
            allowed="focal lengths above 0 (fy below 0: y upwards) and a principal point inside the image"
            + (", near its middle unless it is stated with intrinsics: [fx, fy, cx, cy]" if margin else ""),
        )


def _y_down(camera: NDArray[np.float64]) -> NDArray[np.float64]:
    result = camera.copy()
    result[1, 1] = abs(result[1, 1])
    return result


def turned_down(world_from_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (V,4,4) of cameras with y upwards, z forwards, in their left-handed world, for y downwards in a right-handed world:
    y of camera and of world change their sign."""
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    return np.asarray(mirror @ world_from_camera @ mirror)


def _colour_camera(
    folder: Path,
    convention: Convention,
    listing: Listing,
    stated: Pinhole | None,
    size: tuple[int, int],
    camera_file: str | None,
) -> NDArray[np.float64]:
    if stated is not None:
        return matrix_of(stated)
    camera, of_size = listing.intrinsics, listing.camera_size
    if camera is None:
        path = find_camera(folder) if camera_file is None else named_camera(folder, camera_file)
        of_size, camera = (None, None) if path is None else read_camera(path)
    if camera is not None:
        if of_size not in (None, size):
            height, width = of_size
            raise DataError(
                f"the camera file is of images of {width}x{height} pixels, the pictures are {size[1]}x{size[0]}",
                where=str(folder),
                fix="name the right one with the option camera_file, or give intrinsics: [fx, fy, cx, cy]",
            )
        return camera
    default = listing.default_camera or convention.default_camera
    if default is not None and size == DEFAULT_SIZE:
        return matrix_of(default)
    raise DataError(
        f"the camera of {folder} is not known: images are {size[1]}x{size[0]} and no file states its intrinsics",
        allowed=f"{convention.name}: {convention.needs}",
        fix="give the option intrinsics: [fx, fy, cx, cy]",
    )


def _registered(size: tuple[int, int], depth_size: tuple[int, int], folder: Path) -> tuple[int, int]:
    """``depth_size``; DataError when images of it cannot show the same as pictures of ``size``."""
    stretch = depth_size[1] * size[0] / (depth_size[0] * size[1])
    if max(stretch, 1 / stretch) > SAME_SHAPE:
        raise DataError(
            f"pictures are {size[1]}x{size[0]} and depth images {depth_size[1]}x{depth_size[0]} pixels: of other proportions, "
            "so one camera cannot be that of both",
            where=str(folder),
            fix="give depth_intrinsics: [fx, fy, cx, cy], or turn the pictures as the depth images are",
        )
    return depth_size


def resized(camera: NDArray[np.float64], size: tuple[int, int], new: tuple[int, int]) -> NDArray[np.float64]:
    """Intrinsics (3,3) for the same view at another size (H,W); whole numbers are pixel centres (conventions.py)."""
    result = camera.copy()
    for axis, scale in ((0, new[1] / size[1]), (1, new[0] / size[0])):
        result[axis] *= scale
        result[axis, 2] += (scale - 1) / 2
    return result
