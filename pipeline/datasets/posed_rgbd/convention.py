"""What a reader of one convention gives: frames with their files and poses, and the camera where the files state it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.posed_rgbd.frame_names import Numbering

Pinhole = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels."""


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One picture with its depth image; ``world_from_camera`` (4,4) is None where the scan states no usable pose."""

    frame_id: str
    colour: Path
    depth: Path
    world_from_camera: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Frames of a scene in the order of time.

    ``incomplete`` counts pictures without depth and depth images without picture; intrinsics (3,3) are None where no file
    of the scene states them. ``camera_size`` (height, width) is that of the images that a camera file is made for.
    ``default_camera`` replaces the convention's for scenes of this kind. ``cause`` says why no frame has a pose, or why there
    is none, and ``fix`` what to do, where that is known.
    """

    frames: tuple[SourceFrame, ...]
    incomplete: int = 0
    camera_size: tuple[int, int] | None = None
    intrinsics: NDArray[np.float64] | None = None
    depth_intrinsics: NDArray[np.float64] | None = None
    default_camera: Pinhole | None = None
    cause: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of a reader: names of files in the scene's folder, largest time difference of a pair, seconds that
    are added to the times of the trajectory, and what the entries of a trajectory count."""

    trajectory: str | None = None
    camera_file: str | None = None
    max_time_difference_s: float = 0.02
    clock_offset_s: float = 0.0
    frame_numbers: Numbering = "auto"


class Convention(ABC):
    """A way in which folders of posed RGB-D are laid out."""

    name: ClassVar[str]
    needs: ClassVar[str]
    """What a scene's folder holds, for messages."""
    depth_unit_per_m: ClassVar[int]
    invalid_depth: ClassVar[tuple[int, ...]] = ()
    """Stored values besides 0 that mean no measurement."""
    default_camera: ClassVar[Pinhole | None] = None
    """Intrinsics that the convention's authors state for 640x480 images without calibration file."""

    @abstractmethod
    def matches(self, folder: Path, options: ReadOptions) -> bool:
        """Return whether ``folder`` looks like a scene of this convention; reads names only."""

    def split(self, folder: Path) -> str | None:
        """The split that the scene's own files put it in; None where they say nothing. DataError when they contradict."""
        return None

    @abstractmethod
    def read(self, folder: Path, options: ReadOptions) -> Listing:
        """The scene's frames. Raises DataError or FrameError for files that are missing or malformed."""


def matrix_of(camera: Pinhole) -> NDArray[np.float64]:
    """Intrinsics (3,3) of fx, fy, cx, cy."""
    fx, fy, cx, cy = camera
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def images_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Image files of a folder by name: plain numbers in numeric order, else alphabetical."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    if all(path.stem.isascii() and path.stem.isdigit() for path in found):
        return sorted(found, key=lambda path: (int(path.stem), path.name))
    return sorted(found)
