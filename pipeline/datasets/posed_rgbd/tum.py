"""TUM RGB-D: rgb.txt, depth.txt and groundtruth.txt list files and poses by time stamp; the three are associated by time.

Source: the file format page of the TUM RGB-D benchmark (lines ``timestamp filename`` and ``timestamp tx ty tz qx qy qz qw``,
world from optical frame; depth 5000 per metre, 0 = none; images registered) and its tool associate.py (pairs of less than
0.02 s, closest first, each entry once). Its authors advise the camera of the ROS default calibration for all sequences.

ICL-NUIM in the form "TUM RGB-D compatible" is read here, too: associations.txt (what the tool writes, frame numbers for times)
and a trajectory *.gt.freiburg. Its camera, 481.2, -480, 319.5, 239.5, looks at y upwards; cameras.py turns that.
Source: the page of the ICL-NUIM dataset (Handa et al., ICRA 2014), "Camera parameters".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.core.files import entries
from pipeline.datasets.posed_rgbd.camera_files import only
from pipeline.datasets.posed_rgbd.clocks import apart_s, associate, in_seconds, why_none
from pipeline.datasets.posed_rgbd.convention import Convention, Listing, Pinhole, ReadOptions, SourceFrame
from pipeline.datasets.posed_rgbd.poses import number, pose_of_quaternion, read_text
from pipeline.scenes.conventions import checked_id

GROUND_TRUTH = "groundtruth.txt"
ASSOCIATIONS = "associations.txt"
FREIBURG = ".freiburg"
ICL_NUIM: Pinhole = (481.2, -480.0, 319.5, 239.5)

Entry = tuple[float, str]
"""Time in seconds and name of a file."""


class Tum(Convention):
    """The TUM RGB-D benchmark, and ICL-NUIM."""

    name = "tum"
    needs = f"rgb.txt, depth.txt, {GROUND_TRUTH} (ICL-NUIM: {ASSOCIATIONS}, *.gt{FREIBURG})"
    depth_unit_per_m = 5000
    default_camera: ClassVar[Pinhole | None] = (525.0, 525.0, 319.5, 239.5)

    def matches(self, folder: Path, options: ReadOptions) -> bool:
        if options.trajectory is not None:
            there = (folder / options.trajectory).is_file() and not options.trajectory.endswith(".log")
        else:
            there = (folder / GROUND_TRUTH).is_file() or bool(entries(folder, f"*.gt{FREIBURG}"))
        return there and listed(folder)

    def read(self, folder: Path, options: ReadOptions) -> Listing:
        limit = options.max_time_difference_s
        trajectory = _trajectory(folder, options.trajectory)
        colour, depth, pairs = _lists(folder, limit)
        poses = _read_poses(trajectory)
        times = in_seconds(np.array([time for time, _ in poses])) + options.clock_offset_s
        shown = np.array([colour[one][0] for one, _ in pairs])
        pose_of = dict(associate(shown, times, limit))
        frames = []
        for position, (one, two) in enumerate(pairs):
            path = folder / colour[one][1]
            frame_id = checked_id(path.stem, what="frame id", where=str(folder))
            pose = poses[pose_of[position]][1] if position in pose_of else None
            frames.append(SourceFrame(frame_id, path, folder / depth[two][1], pose))
        cause = fix = None
        if not pairs:
            cause = why_none("pictures", _times(colour), "depth images", _times(depth), limit)
        elif not pose_of:
            cause = why_none("pictures", shown.tolist(), "poses", times.tolist(), limit)
            apart = apart_s(shown.tolist(), times.tolist())
            about = "seconds" if apart is None else f"about {options.clock_offset_s - apart:.1f}"
            fix = f"if poses and pictures are of one recording, set clock_offset_s: {about}, added to the times of the poses"
        default = ICL_NUIM if trajectory.name.endswith(FREIBURG) else None
        incomplete = len(colour) + len(depth) - 2 * len(pairs)
        return Listing(tuple(frames), incomplete, default_camera=default, cause=cause, fix=fix)


def listed(folder: Path) -> bool:
    """Return whether a folder lists its images as TUM RGB-D or ICL-NUIM do."""
    return all((folder / name).is_file() for name in ("rgb.txt", "depth.txt")) or (folder / ASSOCIATIONS).is_file()


def _trajectory(folder: Path, name: str | None) -> Path:
    if name is not None or (folder / GROUND_TRUTH).is_file():
        return folder / (name or GROUND_TRUTH)
    found = entries(folder, f"*.gt{FREIBURG}")
    return only(found, "trajectory", folder, "trajectory") if found else folder / GROUND_TRUTH


def _times(entries: Sequence[Entry]) -> list[float]:
    return [time for time, _ in entries]


def _lists(folder: Path, limit_s: float) -> tuple[list[Entry], list[Entry], list[tuple[int, int]]]:
    """Pictures and depth images, and the pairs of their places: by time, or as associations.txt states them."""
    paths = [folder / name for name in ("rgb.txt", "depth.txt")]
    if not all(path.is_file() for path in paths) and (folder / ASSOCIATIONS).is_file():
        return _read_associations(folder / ASSOCIATIONS)
    colour, depth = (_read_list(path) for path in paths)
    return colour, depth, associate(np.array(_times(colour)), np.array(_times(depth)), limit_s)


def _read_associations(path: Path) -> tuple[list[Entry], list[Entry], list[tuple[int, int]]]:
    """Lines ``timestamp file timestamp file`` of pictures and depth images, in either order."""
    found: list[tuple[Entry, Entry]] = []
    for where, fields in _lines(path):
        if len(fields) != 4:
            raise DataError(f"{len(fields)} columns instead of 4", where=where, allowed="timestamp file timestamp file")
        both = [(_numbers([t], where)[0], _inside(name, where)) for t, name in (fields[:2], fields[2:])]
        depth_at = [i for i, (_, name) in enumerate(both) if "depth" in name.lower()]
        if len(depth_at) != 1:
            raise DataError(
                f"which of {both[0][1]} and {both[1][1]} is the depth image?", where=where, allowed="depth in its name"
            )
        found.append((both[1 - depth_at[0]], both[depth_at[0]]))
    times = [in_seconds(np.array([pair[kind][0] for pair in found])) for kind in (0, 1)]
    order = np.argsort(times[0], kind="stable").tolist()
    colour, depth = ([(float(times[kind][i]), found[i][kind][1]) for i in order] for kind in (0, 1))
    return colour, depth, [(i, i) for i in range(len(order))]


def _inside(name: str, where: str) -> str:
    """A file's name; DataError when it is not below the scene's folder."""
    if name.startswith(("/", "\\")) or ".." in Path(name).parts:
        raise DataError(f"file {name!r} is malformed", where=where, allowed="a name relative to the scene's folder")
    return name


def _read_list(path: Path) -> list[Entry]:
    """(time, file name) of every line of rgb.txt or depth.txt, by time."""
    found = []
    for where, fields in _lines(path):
        if len(fields) != 2:
            raise DataError(f"line {' '.join(fields)!r} is malformed", where=where, allowed="timestamp relative/file/name")
        found.append((_numbers(fields[:1], where)[0], _inside(fields[1], where)))
    times = in_seconds(np.array(_times(found)))
    return sorted(zip(times.tolist(), (name for _, name in found), strict=True))


def _read_poses(path: Path) -> list[tuple[float, NDArray[np.float64] | None]]:
    """(time, pose or None) of every line of a trajectory, by time."""
    found = []
    for where, fields in _lines(path):
        if len(fields) != 8:
            raise DataError(f"{len(fields)} columns instead of 8", where=where, allowed="timestamp tx ty tz qx qy qz qw")
        values = _numbers(fields, where)
        found.append((values[0], pose_of_quaternion(values[1:4], values[4:])))
    return sorted(found, key=lambda entry: entry[0])


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    """(place for messages, fields) of the lines that are neither empty nor comments; commas count as blanks, as in the tool."""
    lines = read_text(path).splitlines()
    split = [(f"{path}, line {i}", line.replace(",", " ").split()) for i, line in enumerate(lines, start=1)]
    return [(where, fields) for where, fields in split if fields and not fields[0].startswith("#")]


def _numbers(fields: Sequence[str], where: str) -> list[float]:
    try:
        values = [number(field) for field in fields]
    except ValueError as error:
        raise DataError(str(error), where=where, allowed="numbers") from None
    if not np.isfinite(values[0]):
        raise DataError(f"time stamp {fields[0]!r} is not finite", where=where)
    return values
