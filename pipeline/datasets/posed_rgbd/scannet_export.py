"""ScanNet as exported: flat (NNNNN.jpg, .png, .txt, intrinsic.txt) or in color/, depth/, pose/, intrinsic/ folders.

The flat form is the ``posed_images`` folder of MMDetection3D, EmbodiedScan and 3DRS; the other is what ScanNet's own SensReader
writes; scannet_frames_25k lays intrinsics_color.txt and intrinsics_depth.txt beside these folders. Pose = world from camera,
-inf where tracking failed; depth in millimetres; 4x4 intrinsics of colour and depth.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.datasets.posed_rgbd.convention import Convention, Listing, ReadOptions, SourceFrame, images_in
from pipeline.datasets.posed_rgbd.poses import read_matrix, usable_pose
from pipeline.scenes.conventions import checked_id

_FOLDERS = ("color", "depth", "pose")


class ScanNetExport(Convention):
    """Exported ScanNet scenes without annotations (the dataset kind `scannet` reads ScanNet's own files)."""

    name = "scannet_export"
    needs = "NNNNN.jpg, NNNNN.png, NNNNN.txt, intrinsic.txt, depth_intrinsic.txt; or color/, depth/, pose/, intrinsic/"
    depth_unit_per_m = 1000

    def matches(self, folder: Path, options: ReadOptions) -> bool:
        return _in_folders(folder) or bool(_flat_stems(folder, (".jpg", ".jpeg")) & _flat_stems(folder, (".txt",)))

    def read(self, folder: Path, options: ReadOptions) -> Listing:
        nested = _in_folders(folder)
        colour_at, depth_at, pose_at = (folder / name if nested else folder for name in _FOLDERS)
        if nested:
            colour, depth = images_in(colour_at, (".jpg", ".jpeg", ".png")), images_in(depth_at, (".png",))
        else:
            colour, depth = _numbered(folder, (".jpg", ".jpeg")), _numbered(folder, (".png",))
        by_name = {path.stem: path for path in depth}
        frames = []
        for path in colour:
            if path.stem in by_name:
                frame_id = checked_id(path.stem, what="frame id", where=str(folder))
                text = pose_at / f"{path.stem}.txt"
                pose = usable_pose(read_matrix(text)) if text.is_file() else None
                frames.append(SourceFrame(frame_id, path, by_name[path.stem], pose))
        intrinsics, depth_intrinsics = _cameras(folder, nested)
        incomplete = len(colour) + len(depth) - 2 * len(frames)
        return Listing(tuple(frames), incomplete, None, intrinsics, depth_intrinsics)


def _in_folders(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in _FOLDERS)


def _numbered(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files whose stem is a plain number, by that number."""
    return [path for path in images_in(folder, suffixes) if path.stem.isascii() and path.stem.isdigit()]


def _flat_stems(folder: Path, suffixes: Iterable[str]) -> set[str]:
    return {path.stem for path in _numbered(folder, tuple(suffixes))}


def _first(folder: Path, kind: str) -> Path:
    """The file of a camera: of SensReader, or of scannet_frames_25k."""
    names = (f"intrinsic/intrinsic_{kind}.txt", f"intrinsics_{kind}.txt", f"intrinsic_{kind}.txt")
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _cameras(folder: Path, nested: bool) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Intrinsics (3,3) of colour and depth; None for those without a file."""
    if nested:
        paths = tuple(_first(folder, kind) for kind in ("color", "depth"))
    else:
        paths = (folder / "intrinsic.txt", folder / "depth_intrinsic.txt")
    found = [read_matrix(path)[:3, :3] if path.is_file() else None for path in paths]
    for path, camera in zip(paths, found, strict=True):
        if camera is not None and not np.isfinite(camera).all():
            raise DataError(f"{path} holds numbers that are not finite")
    return found[0], found[1]
