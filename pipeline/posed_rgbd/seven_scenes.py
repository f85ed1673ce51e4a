"""7-Scenes: per frame frame-XXXXXX.color.png, .depth.png and .pose.txt in one folder per sequence.

Source: the page of the RGB-D Dataset 7-Scenes (Microsoft Research): pose = world from camera, homogeneous; depth in
millimetres with 65535 = invalid; the cameras are not calibrated, and the depth camera's default is focal length 585, principal
point (320, 240). Colour and depth are not registered; without an option the same camera is assumed for both.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pipeline.conventions import checked_id
from pipeline.posed_rgbd.convention import Convention, Listing, Pinhole, ReadOptions, SourceFrame
from pipeline.posed_rgbd.poses import read_matrix, usable_pose

_COLOUR, _DEPTH, _POSE = ".color.png", ".depth.png", ".pose.txt"


class SevenScenes(Convention):
    """The RGB-D Dataset 7-Scenes."""

    name = "seven_scenes"
    needs = f"frame-XXXXXX{_COLOUR}, frame-XXXXXX{_DEPTH}, frame-XXXXXX{_POSE}"
    depth_unit_per_m = 1000
    invalid_depth = (65535,)
    default_camera: ClassVar[Pinhole | None] = (585.0, 585.0, 320.0, 240.0)

    def matches(self, folder: Path) -> bool:
        return any((folder / (name + _POSE)).is_file() for name in _stems(folder, _COLOUR))

    def read(self, folder: Path, options: ReadOptions) -> Listing:
        colour, depth = set(_stems(folder, _COLOUR)), set(_stems(folder, _DEPTH))
        frames = []
        for stem in sorted(colour & depth):
            frame_id = checked_id(stem, what="frame id", where=str(folder))
            path = folder / (stem + _POSE)
            pose = usable_pose(read_matrix(path)) if path.is_file() else None
            frames.append(SourceFrame(frame_id, folder / (stem + _COLOUR), folder / (stem + _DEPTH), pose))
        return Listing(tuple(frames), incomplete=len(colour ^ depth))


def _stems(folder: Path, ending: str) -> list[str]:
    """Names ``frame-XXXXXX`` of the files with this ending."""
    return [path.name.removesuffix(ending) for path in folder.glob(f"frame-*{ending}")]
