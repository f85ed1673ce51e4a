"""Conventions that hold everywhere, written once.

Camera frame   OpenCV: x right, y down, z forward. ``world_from_camera`` maps camera to world points (4,4).
World frame    metres, right-handed, z up, axis-aligned with the room's walls; floor near z = 0.
Pixels         integer (u, v) is the pixel's own coordinate (no half-pixel offset): x = (u - cx) * z / fx.
Images         row-major (H, W); arrays of views start with V; sizes are given (height, width).
Depth          metres as float32 with 0 = invalid; on disk uint16 millimetres with 0 = invalid.
Boxes          float64 rows [cx, cy, cz, dx, dy, dz]: centre and full edge lengths, axis-aligned, metres.
Token grids    rows x columns, row-major, of an image window in normalised image coordinates (see grid.py).
Geometry       always float32 or better; never autocast, never bf16/fp16.

Shape letters  B batch, S scenes, V views, H W pixels, G K token rows and columns, N tokens, C student width,
               D teacher width, Q questions, P prefix length, T text length.
"""

from __future__ import annotations

import re

from pipeline.core.errors import DataError

NAME_PATTERN = r"[a-z][a-z0-9_]*"
"""Names of datasets, teachers, backbones, recipes, benchmarks, splits: lower snake case."""

NAME_LONGEST = 64
"""Most characters of a name; five of them make the path of a run's log, and file systems allow 255 for one part."""

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.\-]*"
"""Ids that come from data files (scenes, frames). They may become path parts, so no separators and no leading dot."""

ID_LONGEST = 200
"""Most characters of an id; file systems allow 255 for a name."""

DEPTH_UNIT_PER_M = 1000
SPLITS = ("train", "val", "test")

_NAME = re.compile(NAME_PATTERN)
_ID = re.compile(ID_PATTERN)


def is_name(text: str) -> bool:
    """True when ``text`` is a lower-snake-case name."""
    return len(text) <= NAME_LONGEST and bool(_NAME.fullmatch(text))


def checked_id(text: object, *, what: str, where: str) -> str:
    """Return ``text`` when it is safe as a path part, else raise DataError. Ids never become paths unchecked."""
    if not isinstance(text, str) or len(text) > ID_LONGEST or not _ID.fullmatch(text) or ".." in text:
        shown = repr(text) if len(repr(text)) <= ID_LONGEST else f"{repr(text)[:ID_LONGEST]}..."
        raise DataError(
            f"{what} {shown} is not a valid id",
            where=where,
            allowed=f"letters, digits, '_', '-', '.', starting with a letter or digit, no path parts, {ID_LONGEST} at most",
        )
    return text
