"""7-Scenes: per frame frame-XXXXXX.color.png (or .jpg), .depth.png and .pose.txt in one folder per sequence.

Source: the page of the RGB-D Dataset 7-Scenes (Microsoft Research): pose = world from camera, homogeneous; depth in
millimetres with 65535 = invalid; the cameras are not calibrated, and the depth camera's default is focal length 585, principal
point (320, 240); TrainSplit.txt and TestSplit.txt beside the sequences name those of each split. Colour and depth are not
registered; without an option the same camera is assumed for both. 3DMatch and tsdf-fusion name frames alike and lay
camera-intrinsics.txt beside them or beside the sequence (camera_files.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from pipeline.core.errors import DataError
from pipeline.core.files import entries
from pipeline.datasets.posed_rgbd.convention import Convention, Listing, Pinhole, ReadOptions, SourceFrame
from pipeline.datasets.posed_rgbd.poses import read_matrix, read_text, usable_pose
from pipeline.scenes.conventions import checked_id

_LISTS = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
_SEQUENCE, _LISTED = re.compile(r"seq-([0-9]+)"), re.compile(r"sequence([0-9]+)")
_COLOURS, _DEPTH, _POSE = (".color.png", ".color.jpg"), ".depth.png", ".pose.txt"


class SevenScenes(Convention):
    """The RGB-D Dataset 7-Scenes."""

    name = "seven_scenes"
    needs = f"frame-XXXXXX{_COLOURS[0]} (or .jpg), frame-XXXXXX{_DEPTH}, frame-XXXXXX{_POSE}, perhaps camera-intrinsics.txt"
    depth_unit_per_m = 1000
    invalid_depth = (65535,)
    default_camera: ClassVar[Pinhole | None] = (585.0, 585.0, 320.0, 240.0)

    def matches(self, folder: Path, options: ReadOptions) -> bool:
        return any((folder / (name + _POSE)).is_file() for ending in _COLOURS for name in _stems(folder, ending))

    def read(self, folder: Path, options: ReadOptions) -> Listing:
        colour = {stem: folder / (stem + ending) for ending in _COLOURS[::-1] for stem in _stems(folder, ending)}
        depth = set(_stems(folder, _DEPTH))
        frames = []
        for stem in sorted(colour.keys() & depth):
            frame_id = checked_id(stem, what="frame id", where=str(folder))
            path = folder / (stem + _POSE)
            pose = usable_pose(read_matrix(path)) if path.is_file() else None
            frames.append(SourceFrame(frame_id, colour[stem], folder / (stem + _DEPTH), pose))
        return Listing(tuple(frames), incomplete=len(colour.keys() ^ depth))

    def split(self, folder: Path) -> str | None:
        """By the lists beside the sequence folders (lines ``sequence1``: the folder seq-01); None where there are none."""
        folder = folder.absolute()
        lists = {split: folder.parent / name for split, name in _LISTS.items()}
        number = _SEQUENCE.fullmatch(folder.name)
        if number is None or not any(path.is_file() for path in lists.values()):
            return None
        found = [split for split, path in lists.items() if path.is_file() and int(number[1]) in _sequences(path)]
        if len(found) == 1:
            return found[0]
        raise DataError(
            f"{folder.name} is in {'both' if found else 'none'} of {' and '.join(_LISTS.values())}",
            where=str(folder.parent),
            fix="correct the lists, or set the option split or splits",
        )


def _sequences(path: Path) -> set[int]:
    """Numbers of the sequences in a list."""
    found = set()
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = _LISTED.fullmatch(line.strip())
        if name is not None:
            found.add(int(name[1]))
        elif line.strip() and not line.startswith("#"):
            raise DataError(f"line {line.strip()!r} is malformed", where=f"{path}, line {number}", allowed="sequence1")
    return found


def _stems(folder: Path, ending: str) -> list[str]:
    """Names ``frame-XXXXXX`` of the files with this ending."""
    return [path.name.removesuffix(ending) for path in entries(folder, f"frame-*{ending}")]
