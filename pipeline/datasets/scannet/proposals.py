"""Object proposals of a scan: boxes of Mask3D masks, or a file of boxes.

Masks: ``<scene>.mask.npz``, a scipy sparse matrix (masks, vertices) of 0 and 1, best mask first, as LEO released them for
ScanNet. 3DRS and Video-3D LLM use the first 50. Box of a mask: minimum and maximum of its axis-aligned vertices.
Box file: JSON {"scannet/<scene>": [[cx,cy,cz,dx,dy,dz], ...]} in metres, axis-aligned (``scannet_val_pred_box.json``).
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.core.errors import DataError
from pipeline.datasets.scannet.instances import box_of
from pipeline.datasets.scannet.reading import AGAIN, read_json_object

Floats = NDArray[np.float64]
LARGEST_M = 1e6
"""No number of a box is above this."""


def mask_boxes(path: Path, vertices: Floats, limit: int) -> tuple[Floats, int]:
    """Boxes (N,6) of the first ``limit`` masks over aligned ``vertices``, and how many of these masks are empty (skipped)."""
    masks = _load(path)
    if masks.shape[1] != len(vertices):
        raise DataError(
            f"masks over {masks.shape[1]} vertices for a mesh of {len(vertices)}",
            where=str(path),
            fix="mesh and masks are of different scans or versions: get both again",
        )
    try:
        masks = masks.tocsr()
        masks.check_format(full_check=True)
    except ValueError as error:
        raise DataError(f"the masks contradict themselves ({error})", where=str(path), fix=AGAIN) from None
    rows = masks[:limit]
    boxes: list[Floats] = []
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        members = rows.indices[start:stop][rows.data[start:stop] == 1]
        if len(members):
            points = vertices[members]
            boxes.append(box_of(points.min(0), points.max(0)))
    return np.array(boxes, dtype=np.float64).reshape(-1, 6), rows.shape[0] - len(boxes)


def _load(path: Path) -> Any:
    try:
        masks = sparse.load_npz(path)  # reads arrays only, never pickled objects
    except FileNotFoundError:
        fix = "get the Mask3D masks, or set the option proposals: boxes or ground_truth"
        raise DataError("the scan's masks are missing", where=str(path), fix=fix) from None
    except (
        OSError, ValueError, KeyError, TypeError, IndexError, EOFError, RuntimeError, MemoryError, OverflowError, struct.error,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        what = f"the scan's masks cannot be read ({error})"
        raise DataError(what, where=str(path), allowed="a scipy sparse matrix in an .npz file", fix=AGAIN) from None
    if masks.ndim != 2 or masks.dtype.kind not in "biuf":
        raise DataError(f"the masks are {masks.ndim}-D of {masks.dtype}", where=str(path), allowed="(masks, vertices), 0 or 1")
    return masks


class BoxFile:
    """A file of boxes, read once."""

    def __init__(self, path: Path):
        self.path = path
        self._boxes = read_json_object(path, "the box file", fix="name the file with the option `boxes`")

    def boxes(self, scene: str) -> Floats:
        """Boxes (N,6) of a scan. DataError when it has none, or one is not a box."""
        key = f"scannet/{scene}"
        if key not in self._boxes:
            fix = "use a file with this scan, or leave the scan out"
            raise DataError(f"the box file has no entry {key!r}", where=str(self.path), fix=fix)
        rows = self._boxes[key]
        if not isinstance(rows, list):
            raise self._fault(key, "is not a list of boxes")
        for number, row in enumerate(rows):
            if not (isinstance(row, list) and len(row) == 6 and all(_is_number(v) for v in row)):
                raise self._fault(key, f"box {number} is not six finite numbers")
            if min(row[3:]) < 0:
                raise self._fault(key, f"box {number} has a negative size")
        return np.array(rows, dtype=np.float64).reshape(-1, 6)

    def _fault(self, key: str, what: str) -> DataError:
        return DataError(
            f"{key}: {what}", where=str(self.path), allowed="[cx,cy,cz,dx,dy,dz] in metres", fix="correct the file"
        )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST_M and not math.isnan(value)
