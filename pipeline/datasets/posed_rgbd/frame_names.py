"""Numbers and times in the names of images: which picture and depth image are one frame, and which entry of a trajectory it is.

A trajectory counts frames. Frames must therefore be numbered before images without a partner are left out, or one lost image
shifts the poses of all later frames.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.core.errors import DataError
from pipeline.datasets.posed_rgbd.clocks import associate

Numbering = Literal["auto", "order", "from_0", "from_1"]
_TIMED = re.compile(r"([0-9]{1,9})-([0-9]{6,18})")
"""Redwood: number from 1 and time in microseconds, 0000003-000000066738."""
_NUMBERED = re.compile(r"[^0-9]*([0-9]{1,9})[^0-9]*")
"""The only number of a name. Names of two numbers (1305031102.175304) are compared as they are."""
_US_PER_S = 1e6
_LIKELY = 0.5
"""Numbers in names are not what a trajectory counts when fewer of them than this share occur in it (chosen key frames)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture, its depth image, and the ``number`` of the frame among ``Frames.numbers``."""

    number: int
    colour: Path
    depth: Path


@dataclass(frozen=True, slots=True)
class Frames:
    """Whole frames in the order of their numbers; ``numbers`` are of all frames, those without a partner included."""

    whole: tuple[Frame, ...]
    numbers: tuple[int, ...]
    incomplete: int


def pair(colour: Sequence[Path], depth: Sequence[Path], *, where: str) -> Frames:
    """Pictures with their depth images.

    By the numbers in their names; by time (closest first, as Open3D's synchronize_frames.py) where the names hold times that
    contradict the numbers; by equal names where there are no numbers; by order where names have nothing in common and there
    are as many of both. DataError when none of this works.
    """
    numbered = _by_number(colour), _by_number(depth)
    if numbered[0] is not None and numbered[1] is not None:
        common = sorted(set(numbered[0]) & set(numbered[1]))
        if _times_contradict(numbered[0], numbered[1], common):
            return _paired_by_time(numbered[0], numbered[1])
        if common:
            return _paired(numbered[0], numbered[1])
    names = sorted({path.stem for path in (*colour, *depth)})
    at = {name: position for position, name in enumerate(names)}
    by_name = [{at[path.stem]: path for path in paths} for paths in (colour, depth)]
    if set(by_name[0]) & set(by_name[1]):
        return _paired(by_name[0], by_name[1])
    if len(colour) != len(depth):
        raise DataError(
            f"{len(colour)} colour and {len(depth)} depth images have different names and cannot be paired by order",
            where=where,
        )
    return _paired(dict(enumerate(colour)), dict(enumerate(depth)))


def _paired(colour: dict[int, Path], depth: dict[int, Path]) -> Frames:
    numbers = tuple(sorted({*colour, *depth}))
    whole = tuple(Frame(n, colour[n], depth[n]) for n in numbers if n in colour and n in depth)
    return Frames(whole, numbers, len(colour) + len(depth) - 2 * len(whole))


def _by_number(paths: Sequence[Path]) -> dict[int, Path] | None:
    """Number -> image; None when a name holds none or two hold the same."""
    found: dict[int, Path] = {}
    for path in paths:
        name = _TIMED.fullmatch(path.stem) or _NUMBERED.fullmatch(path.stem)
        if name is None or found.setdefault(int(name[1]), path) is not path:
            return None
    return found


def _time_s(path: Path) -> float | None:
    name = _TIMED.fullmatch(path.stem)
    return None if name is None else int(name[2]) / _US_PER_S


def _period_s(paths: Collection[Path]) -> float | None:
    """Median distance of the times in the names; None when a name has no time."""
    times = [time for path in paths if (time := _time_s(path)) is not None]
    return float(np.median(np.diff(sorted(times)))) if len(times) == len(paths) > 1 else None


def _times_contradict(colour: dict[int, Path], depth: dict[int, Path], common: Sequence[int]) -> bool:
    """Return whether images of one number are more than half a period apart, or none has a number of the other kind."""
    period = _period_s(depth.values())
    if period is None or _period_s(colour.values()) is None:
        return False
    apart = [abs((_time_s(colour[n]) or 0) - (_time_s(depth[n]) or 0)) for n in common]
    return max(apart, default=np.inf) > period / 2


def _paired_by_time(colour: dict[int, Path], depth: dict[int, Path]) -> Frames:
    """Pairs of less than half a period; the trajectory counts pictures (Open3D's tool renames depth images after them)."""
    pictures, images = list(colour.values()), list(depth.values())
    times = [np.array([_time_s(path) or 0.0 for path in paths]) for paths in (pictures, images)]
    numbers = list(colour)
    whole = [
        Frame(numbers[one], pictures[one], images[two])
        for one, two in associate(times[0], times[1], (_period_s(images) or 0.0) / 2)
    ]
    return Frames(
        tuple(sorted(whole, key=lambda frame: frame.number)),
        tuple(sorted(numbers)),
        len(pictures) + len(images) - 2 * len(whole),
    )


def entries_of(numbers: Sequence[int], logged: Collection[int], numbering: Numbering, *, where: str) -> dict[int, int]:
    """Number of a frame -> entry of the trajectory, whose entries are ``logged``.

    ``numbering``: ``order`` (entry i is the i-th frame), ``from_0``, ``from_1`` (the numbers themselves count); ``auto``: the
    order where numbers have no gaps, the numbers where the trajectory speaks of more frames than there are. DataError where
    both could be meant, or where the trajectory goes beyond the frames.
    """
    order = {number: position for position, number in enumerate(numbers)}
    if numbering == "order" or not numbers or not logged:
        return order
    if numbering != "auto":
        return {number: number - (numbering == "from_1") for number in numbers}
    count, last = len(numbers), max(logged)
    if last > max(numbers[-1], count - 1):
        raise DataError(
            f"the trajectory speaks of frame {last}, but there are {count} frames, numbered {numbers[0]} to {numbers[-1]}",
            where=where,
            fix="set frame_numbers: from_0 or from_1 if the numbers in the images' names are those of the trajectory",
        )
    if last >= count and numbers[0] == 0:
        return {number: number for number in numbers}
    steps = {b - a for a, b in pairwise(numbers)} or {1}
    whole = len(steps) == 1 and (numbers[0] <= 1 or steps != {1})
    likely = max(sum(number - first in logged for number in numbers) for first in (0, 1)) / count
    if last < count and (whole or likely < _LIKELY):
        return order
    raise DataError(
        f"the names of {count} images hold numbers from {numbers[0]} to {numbers[-1]}, the trajectory has entries to {last}: "
        "frames were lost, and whether before or after the trajectory was made is not known",
        where=where,
        fix="set frame_numbers: from_0 or from_1 (entries are numbers in names) or order (entry i is the i-th image)",
    )
