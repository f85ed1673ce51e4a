"""Counts of what was left out of a house, with the first few of each kind by name; or a refusal of the first fault."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.core.errors import DataError
from pipeline.core.notes import Note

NOTES = 3
"""How many of each kind are named."""
LARGEST = 1e12
"""Numbers in files beyond it are damage, and would overflow in what is computed of them."""


class Tally:
    """Counts of what was left out. A *fault* is something wrong with the files, a *choice* follows from the options or the
    release.
    """

    def __init__(self, *, refuse: bool = False):
        self.refuse = refuse
        self.counts: Counter[str] = Counter()
        self.notes: dict[str, list[str]] = {}

    def fault(self, kind: str, what: str, where: str) -> None:
        """Count a fault of the files; DataError that names file and item when faults are refused."""
        if self.refuse:
            raise DataError(f"{kind}: {what}", where=where, fix="fix the file, or leave such things out: on_fault: skip")
        self.choice(kind)
        notes = self.notes.setdefault(kind, [])
        if len(notes) < NOTES:
            notes.append(f"{where}: {what}")

    def choice(self, kind: str, times: int = 1) -> None:
        """Count something that is left out on purpose."""
        if times:
            self.counts[kind] += times

    def to_json(self) -> dict[str, Any]:
        """Content of a marker file."""
        return {"counts": dict(sorted(self.counts.items())), "notes": dict(sorted(self.notes.items()))}

    def add(self, content: dict[str, Any]) -> None:
        """Add what another tally wrote with ``to_json``."""
        self.counts.update(content["counts"])
        for kind, notes in content["notes"].items():
            mine = self.notes.setdefault(kind, [])
            mine += notes[: NOTES - len(mine)]

    def notes_of_faults(self) -> list[Note]:
        """One note per kind of fault, with the first item by name. What options and release leave out is none."""
        return [
            Note(kind.replace(" ", "_"), f"x {kind}: left out; the first: {self.notes[kind][0]}", self.counts[kind])
            for kind in sorted(self.notes)
        ]

    def text(self) -> str:
        """One line per kind."""
        lines = []
        for kind, count in sorted(self.counts.items()):
            named = "; ".join(self.notes.get(kind, ()))
            lines.append(
                f"  {count} x {kind}" + (f" ({named}{'; ...' if count > len(self.notes[kind]) else ''})" if named else "")
            )
        return "\n".join(lines)
