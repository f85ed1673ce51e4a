"""Times of lists and trajectories: their unit, which entries belong together, and why none do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_UNIX_S = (1e9, 2.5e9)
"""Seconds since 1970 of recordings: 2001 to 2049."""
_UNITS = {1.0: "seconds", 1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
_HALF_HOUR_S = 1800.0
_ZONE_S = 2.0
"""A difference this close to whole half hours is another time zone."""


def in_seconds(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times (N,) in seconds; Unix times in milli-, micro- or nanoseconds are known by their size, all others stay."""
    if not times.size:
        return times
    middle = float(np.median(times))
    per_s = next((unit for unit in _UNITS if _UNIX_S[0] <= middle / unit <= _UNIX_S[1]), 1.0)
    return times / per_s


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


def why_none(what: str, times: Sequence[float], others: str, other_times: Sequence[float], limit_s: float) -> str:
    """Cause, in words, of two lists of times (s) without a pair of less than ``limit_s``."""
    if not len(times) or not len(other_times):
        return f"there are no {what if not len(times) else others}"
    spans = " and ".join(f"{name} from {min(t):.6f} to {max(t):.6f}" for name, t in ((what, times), (others, other_times)))
    between = apart_s(times, other_times)
    said = "" if between is None else f", {between:+,.1f} s apart: other clocks, time zones or units"
    return f"no time of the {others} is within {limit_s:g} s of one of the {what}: {spans} s{said}"


def apart_s(times: Sequence[float], other_times: Sequence[float]) -> float | None:
    """Seconds from the middle of the first list to that of the second, whole half hours when close to it (time zones); None
    where the lists overlap or one is empty."""
    if not len(times) or not len(other_times) or max(min(times), min(other_times)) <= min(max(times), max(other_times)):
        return None
    apart = (min(other_times) + max(other_times) - min(times) - max(times)) / 2
    zone = round(apart / _HALF_HOUR_S) * _HALF_HOUR_S
    return zone if zone and abs(apart - zone) < _ZONE_S else apart
