"""The list of finished scenes of a shard while it is being written: one JSON line per scene, appended after the scene's own
bytes are on disk. A line that is cut short by a crash is ignored, so its scene is written again.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.features.spec import rebuild
from pipeline.provenance import digest, write_atomic


def fsync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SceneEntry:
    """A finished scene: its frames in order, one checksum per view, whether it has confidences, its bytes on disk."""

    frame_ids: tuple[str, ...]
    views: tuple[str, ...]
    confidence: bool
    bytes: int

    @property
    def checksum(self) -> str:
        """One checksum for the scene."""
        return digest([self.frame_ids, self.views])

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"checksum": self.checksum}

    @classmethod
    def from_json(cls, content: Any, *, where: str) -> SceneEntry:
        try:
            entry = cls(tuple(content["frame_ids"]), tuple(content["views"]), content["confidence"], content["bytes"])
            complete = len(entry.frame_ids) == len(entry.views) and entry.checksum == content["checksum"]
        except (TypeError, KeyError) as error:
            raise StoreError(f"a scene entry is malformed ({error!r})", where=where, mend=rebuild(where)) from None
        if not complete:
            raise StoreError("a scene entry contradicts its own checksum", where=where, mend=rebuild(where))
        return entry


class Journal:
    """``{folder}/journal.jsonl``: a header line with the spec digest, then one line per finished scene."""

    def __init__(self, path: Path):
        self.path = path

    def read(self, spec_digest: str) -> dict[str, SceneEntry] | None:
        """Finished scenes of a store of this spec; None when there is no journal or it is of another spec."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        found: dict[str, SceneEntry] = {}
        for number, line in enumerate(lines):
            try:
                content = json.loads(line)
                if number == 0:
                    if content["spec"] != spec_digest:
                        return None
                else:
                    found[content["scene"]] = SceneEntry.from_json(content["entry"], where=str(self.path))
            except (json.JSONDecodeError, KeyError, TypeError, StoreError):
                if number == 0:
                    return None
                continue
        return found if lines else None

    def start(self, spec_digest: str, entries: dict[str, SceneEntry]) -> None:
        """Begin a journal that already holds ``entries``."""
        lines = [json.dumps({"spec": spec_digest})]
        lines += [json.dumps({"scene": scene, "entry": entry.to_json()}) for scene, entry in entries.items()]
        write_atomic(self.path, "\n".join(lines) + "\n")

    def append(self, scene_id: str, entry: SceneEntry) -> None:
        """Add a finished scene; it is on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"scene": scene_id, "entry": entry.to_json()}) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
