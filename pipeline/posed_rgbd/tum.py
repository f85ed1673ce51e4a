"""TUM RGB-D: rgb.txt, depth.txt and groundtruth.txt list files and poses by time stamp; the three are associated by time.

Source: the file format page of the TUM RGB-D benchmark (lines ``timestamp filename`` and ``timestamp tx ty tz qx qy qz qw``,
world from optical frame; depth 5000 per metre, 0 = none; images registered) and its tool associate.py (pairs of less than
0.02 s, closest first, each entry once). Its authors advise the camera of the ROS default calibration for all sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.conventions import checked_id
from pipeline.errors import DataError
from pipeline.posed_rgbd.convention import Convention, Listing, Pinhole, ReadOptions, SourceFrame
from pipeline.posed_rgbd.poses import number, pose_of_quaternion, read_text

GROUND_TRUTH = "groundtruth.txt"


class Tum(Convention):
    """The TUM RGB-D benchmark."""

    name = "tum"
    needs = "rgb.txt, depth.txt, groundtruth.txt"
    depth_unit_per_m = 5000
    default_camera: ClassVar[Pinhole | None] = (525.0, 525.0, 319.5, 239.5)

    def matches(self, folder: Path, options: ReadOptions) -> bool:
        return all((folder / name).is_file() for name in ("rgb.txt", "depth.txt", options.trajectory or GROUND_TRUTH))

    def read(self, folder: Path, options: ReadOptions) -> Listing:
        colour, depth = (_read_list(folder / name) for name in ("rgb.txt", "depth.txt"))
        poses = _read_poses(folder / (options.trajectory or GROUND_TRUTH))
        times = [np.array([time for time, _ in entries]) for entries in (colour, depth)]
        pairs = associate(times[0], times[1], options.max_time_difference_s)
        shown = times[0][[one for one, _ in pairs]]
        pose_of = dict(associate(shown, np.array([time for time, _ in poses]), options.max_time_difference_s))
        frames = []
        for position, (one, two) in enumerate(pairs):
            path = folder / colour[one][1]
            frame_id = checked_id(path.stem, what="frame id", where=str(folder / "rgb.txt"))
            pose = poses[pose_of[position]][1] if position in pose_of else None
            frames.append(SourceFrame(frame_id, path, folder / depth[two][1], pose))
        return Listing(tuple(frames), incomplete=len(colour) + len(depth) - 2 * len(pairs))


def associate(first: NDArray[np.float64], second: NDArray[np.float64], limit_s: float) -> list[tuple[int, int]]:
    """Pairs of indices into two lists of times (s) that are less than ``limit_s`` apart, by the first index.

    The closest pair is taken first and every entry once; equal differences go to the earlier times.
    """
    order = np.argsort(second, kind="stable")
    low = np.searchsorted(second[order], first - limit_s, side="left")
    high = np.searchsorted(second[order], first + limit_s, side="right")
    candidates = []
    for one, (begin, end) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        for two in order[begin:end].tolist():
            difference = abs(float(first[one] - second[two]))
            if difference < limit_s:
                candidates.append((difference, float(first[one]), float(second[two]), one, two))
    taken: dict[int, int] = {}
    used: set[int] = set()
    for *_, one, two in sorted(candidates):
        if one not in taken and two not in used:
            taken[one] = two
            used.add(two)
    return sorted(taken.items())


def _read_list(path: Path) -> list[tuple[float, str]]:
    """(time, file name) of every line of rgb.txt or depth.txt, by time."""
    found = []
    for where, fields in _lines(path):
        if len(fields) != 2 or fields[1].startswith(("/", "\\")) or ".." in Path(fields[1]).parts:
            raise DataError(f"line {' '.join(fields)!r} is malformed", where=where, allowed="timestamp relative/file/name")
        found.append((_numbers(fields[:1], where)[0], fields[1]))
    return sorted(found)


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
