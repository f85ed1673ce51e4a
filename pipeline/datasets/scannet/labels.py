"""Raw object names to NYU40 classes (``scannetv2-labels.combined.tsv``) and to the 18 classes of ScanRefer."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import DataError
from pipeline.datasets.scannet.reading import AGAIN, read_text

CLASSES_18 = (
    *("cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "desk"),
    *("curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub", "others"),
)
"""ScanRefer's classes: 17 NYU40 classes and the rest (lib/config.py of the ScanRefer repository)."""

UNKNOWN = "unknown"
"""NYU40 class of a raw name that the table does not have; it counts among the "others"."""

COLUMNS = ("raw_category", "nyu40id", "nyu40class")


@dataclass(frozen=True, slots=True)
class Labels:
    """``table``: raw name -> (NYU40 id, NYU40 class)."""

    table: Mapping[str, tuple[int, str]]

    def __contains__(self, raw: str) -> bool:
        return raw in self.table

    def attributes(self, raw: str) -> dict[str, str]:
        """``nyu40id`` (only where known), ``nyu40class`` and ``class18`` of a raw name, as attributes of an object."""
        number, name = self.table.get(raw, (0, UNKNOWN))
        found = {"nyu40id": str(number)} if number else {}
        return found | {"nyu40class": name, "class18": name if name in CLASSES_18 else "others"}


def read_labels(path: Path) -> Labels:
    """The table of a release. DataError when it is missing or is another table."""
    text = read_text(path, "the label table", fix="get scannetv2-labels.combined.tsv, or name it with the option `labels`")
    try:
        rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
        columns, content = tuple(rows.fieldnames or ()), list(rows)
    except csv.Error as error:
        raise DataError(f"the label table is no table ({error})", where=str(path), fix=AGAIN) from None
    if not set(COLUMNS) <= set(columns):
        raise DataError(
            f"the label table has the columns {', '.join(columns) or '(none)'}",
            where=str(path),
            allowed=f"a tab-separated table with {', '.join(COLUMNS)}",
            fix="name scannetv2-labels.combined.tsv of ScanNet v2",
        )
    table: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(content, start=2):
        raw, nyu40id, name = (str(row[column] or "").strip() for column in COLUMNS)
        if not raw or not name or not nyu40id.isdecimal():
            raise DataError(f"line {number} of the label table is incomplete", where=str(path), fix=AGAIN)
        table[raw] = (int(nyu40id), name)
    if not table:
        raise DataError("the label table has no rows", where=str(path), fix=AGAIN)
    return Labels(table)
