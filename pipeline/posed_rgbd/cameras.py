"""The cameras of a scene: stated by an option, by the scene's files, or the convention's default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.posed_rgbd.convention import Convention, Listing, Pinhole, matrix_of

DEFAULT_SIZE = (480, 640)
"""Images (H,W) that the default cameras of conventions belong to."""

SAME_SHAPE = 1.05
"""Most that proportions of registered images differ by (ScanNet: 1296x968 and 640x480, 1.004)."""


def cameras_of(
    folder: Path,
    convention: Convention,
    listing: Listing,
    stated: tuple[Pinhole | None, Pinhole | None],
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intrinsics (3,3) of colour and depth images of ``sizes`` (H,W); ``stated`` are the options for the two.

    Without an own camera, depth has the colour camera's at its own size (registered images). DataError when the camera is
    not known or does not belong to the images.
    """
    size, depth_size = sizes
    colour = _colour_camera(folder, convention, listing, stated[0], size)
    if stated[1] is not None:
        depth = matrix_of(stated[1])
    elif listing.depth_intrinsics is not None:
        depth = listing.depth_intrinsics
    else:
        depth = resized(colour, size, _registered(size, depth_size, folder))
    for name, camera, (height, width) in (("intrinsics", colour, size), ("depth_intrinsics", depth, depth_size)):
        if not (camera[0, 0] > 0 < camera[1, 1] and 0 < camera[0, 2] < width and 0 < camera[1, 2] < height):
            raise DataError(
                f"{name} {camera[:2].tolist()} do not belong to images of {width}x{height} pixels",
                where=str(folder),
                allowed="focal lengths above 0 and a principal point inside the image",
            )
    return colour, depth


def _colour_camera(
    folder: Path, convention: Convention, listing: Listing, stated: Pinhole | None, size: tuple[int, int]
) -> NDArray[np.float64]:
    if stated is not None:
        return matrix_of(stated)
    if listing.intrinsics is not None:
        if listing.camera_size not in (None, size):
            height, width = listing.camera_size
            raise DataError(
                f"the camera file is of images of {width}x{height} pixels, the pictures are {size[1]}x{size[0]}",
                where=str(folder),
                mend="name the right one with the option camera_file, or give intrinsics: [fx, fy, cx, cy]",
            )
        return listing.intrinsics
    if convention.default_camera is not None and size == DEFAULT_SIZE:
        return matrix_of(convention.default_camera)
    raise DataError(
        f"the camera of {folder} is not known: images are {size[1]}x{size[0]} and no file states its intrinsics",
        allowed=f"{convention.name}: {convention.needs}",
        mend="give the option intrinsics: [fx, fy, cx, cy]",
    )


def _registered(size: tuple[int, int], depth_size: tuple[int, int], folder: Path) -> tuple[int, int]:
    """``depth_size``; DataError when images of it cannot show the same as pictures of ``size``."""
    stretch = depth_size[1] * size[0] / (depth_size[0] * size[1])
    if max(stretch, 1 / stretch) > SAME_SHAPE:
        raise DataError(
            f"pictures are {size[1]}x{size[0]} and depth images {depth_size[1]}x{depth_size[0]} pixels: of other proportions, "
            "so one camera cannot be that of both",
            where=str(folder),
            mend="give depth_intrinsics: [fx, fy, cx, cy], or turn the pictures as the depth images are",
        )
    return depth_size


def resized(camera: NDArray[np.float64], size: tuple[int, int], new: tuple[int, int]) -> NDArray[np.float64]:
    """Intrinsics (3,3) for the same view at another size (H,W); whole numbers are pixel centres (conventions.py)."""
    result = camera.copy()
    for axis, scale in ((0, new[1] / size[1]), (1, new[0] / size[0])):
        result[axis] *= scale
        result[axis, 2] += (scale - 1) / 2
    return result
