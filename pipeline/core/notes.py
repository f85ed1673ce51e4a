"""What a user has to know about prepared data: what was dropped, what is doubtful, what could not be known.

A note is counted, stands in the scenes manifest, is printed by `prepare` as a line that begins with ``warning:`` (which the
workflow shows on the screen and not only in the log), and is shown on the report page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Note:
    """One fact about a dataset. ``kind`` in lower snake case; ``count`` of the things (or of ``out_of`` things) it is true of.

    ``text`` is a sentence without its count in front, e.g. "scans without axisAlignment: not turned". ``scenes``: all scene
    ids it is about, in index order (messages show the first five).
    """

    kind: str
    text: str
    count: int
    out_of: int | None = None
    scenes: tuple[str, ...] = ()

    def line(self) -> str:
        """The note as one line for people."""
        counted = f"{self.count:,}" + (f" of {self.out_of:,}" if self.out_of is not None else "")
        listed = f" ({first_of(self.scenes)})" if self.scenes else ""
        return "".join(c if c.isprintable() else " " for c in f"{counted} {self.text}{listed}")  # names come from files


def first_of(names: Sequence[str]) -> str:
    """The first few names, and dots where there are more."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def notes_to_json(notes: Sequence[Note]) -> list[dict[str, Any]]:
    """Notes as manifest content."""
    return [asdict(note) | {"scenes": list(note.scenes)} for note in notes]


def notes_from_json(entries: Sequence[dict[str, Any]]) -> tuple[Note, ...]:
    """Manifest content as notes."""
    return tuple(Note(**(entry | {"scenes": tuple(entry["scenes"])})) for entry in entries)
