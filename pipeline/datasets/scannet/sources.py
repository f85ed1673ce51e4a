"""Which source files a scan is made of, what is missing of them, and whether they are still those that it was made of.

A file is known by its size and time of change, an exported folder by the number, bytes and newest time of its files. What was
removed after a scan was made does not count as changed: 1.2 TB of streams may go when the scenes are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.provenance import file_stamp

Stamps = Mapping[str, list[int]]
"""Path -> [bytes, time of change in ns], or [files, bytes, newest time in ns] of a folder."""


@dataclass(frozen=True, slots=True)
class Places:
    """Paths of the files of a release.

    ``exported`` None: always the .sens stream; ``either``: the exported folder where there is one. ``masks`` None: no scan
    has proposals from masks. ``shared`` are files that every scan is made of: label table, frame lists.
    ``boxes``: the file of proposals, if any.
    """

    scans: Path
    exported: Path | None
    either: bool
    masks: Path | None
    boxes: Path | None
    shared: tuple[Path, ...]

    def frames(self, scene: str) -> Path:
        """The exported folder or the stream of a scan."""
        exported = None if self.exported is None else self.exported / scene
        if exported is not None and (exported.is_dir() or not self.either):
            return exported
        return self.scans / scene / f"{scene}.sens"

    def annotated(self, scene: str, split: str) -> bool:
        """Return whether a scan has objects: those of the split test only where their files are there (not released)."""
        return split != "test" or (self.scans / scene / f"{scene}.aggregation.json").exists()

    def mask_file(self, scene: str, split: str) -> Path | None:
        """The masks that a scan's proposals are made of; None where they come from elsewhere."""
        return None if split == "train" or self.masks is None else self.masks / f"{scene}.mask.npz"

    def files(self, scene: str, split: str) -> Iterator[Path]:
        """Files and folders that a scan is made of."""
        stem = self.scans / scene / scene
        masks, annotated = self.mask_file(scene, split), self.annotated(scene, split)
        yield stem.with_name(f"{scene}.txt")
        if annotated or masks is not None:
            yield stem.with_name(f"{scene}_vh_clean_2.ply")
        if annotated:
            yield stem.with_name(f"{scene}_vh_clean_2.0.010000.segs.json")
            yield stem.with_name(f"{scene}.aggregation.json")
        yield self.frames(scene)
        if masks is not None:
            yield masks
        if split != "train" and self.boxes is not None:
            yield self.boxes
        yield from self.shared


def stamps(places: Places, scene: str, split: str) -> tuple[Stamps, tuple[Path, ...]]:
    """Stamps of a scan's source files, and its own files that are missing (those of all scans are missed by who reads them)."""
    found: dict[str, list[int]] = {}
    missing = []
    for path in places.files(scene, split):
        stamp = _stamp(path)
        if stamp is not None:
            found[str(path)] = stamp
        elif path != places.boxes and path not in places.shared:
            missing.append(path)
    return found, tuple(missing)


def unchanged(then: object, now: Stamps) -> bool:
    """Return whether all that is there ``now`` is as it was ``then`` (stamps in a marker)."""
    return isinstance(then, Mapping) and all(then.get(path) == stamp for path, stamp in now.items())


def _stamp(path: Path) -> list[int] | None:
    if not path.is_dir():
        return file_stamp(path) or None
    try:
        with os.scandir(path) as entries:
            inside = [entry.stat() for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return None
    return [len(inside), sum(one.st_size for one in inside), max((one.st_mtime_ns for one in inside), default=0)]
