"""The list of finished scenes of a shard while it is being written: one JSON line per scene, appended after the scene's own
bytes are on disk. A line that is cut short by a crash is ignored, so its scene is written again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import PipelineError, StoreError
from pipeline.core.provenance import digest, write_atomic
from pipeline.features.spec import rebuild
from pipeline.scenes.conventions import checked_id
from pipeline.scenes.grid import Window


@dataclass(frozen=True, slots=True)
class SceneEntry:
    """A finished scene: its frames in order, per array one checksum per view, its bytes on disk.

    ``views``: array name ("tokens" or "tokens.{layer}", "scales", "confidence", "depth", "pose") -> checksums in frame order.
    ``source``: digest of the frames' files, poses and cameras that were encoded (index.source_digest; "" where not given).
    ``error``: largest 1 - cosine between a token before and after storing, for int8 (measured), else None (dtypes.py).
    ``seen``: the part of its images that the teacher saw, where that is not what the spec's ``native`` grid says (scenes with
    images of another size on a student's grid), else None.
    """

    frame_ids: tuple[str, ...]
    views: dict[str, tuple[str, ...]]
    bytes: int
    error: float | None = None
    seen: Window | None = None
    source: str = ""

    @property
    def checksum(self) -> str:
        """Return one checksum for the scene."""
        return digest([self.frame_ids, sorted(self.views.items()), *([list(self.seen)] if self.seen else [])])

    def to_json(self) -> dict[str, Any]:
        """Return the content for a manifest or a journal line."""
        content = {"frame_ids": self.frame_ids, "views": self.views, "bytes": self.bytes, "checksum": self.checksum}
        content["source"] = self.source
        content |= {} if self.error is None else {"error": self.error}
        return content if self.seen is None else content | {"seen": self.seen}

    @classmethod
    def from_json(cls, content: Any, *, where: str) -> SceneEntry:
        """Parse an entry. Raise StoreError when it is malformed or contradicts its own checksum."""
        try:
            views = {name: tuple(values) for name, values in content["views"].items()}
            extras = (content.get("error"), _window(content.get("seen")), str(content["source"]))
            entry = cls(tuple(content["frame_ids"]), views, content["bytes"], *extras)
            texts = [content["frame_ids"], *content["views"].values()]
            if not all(isinstance(values, list) and all(isinstance(text, str) for text in values) for values in texts):
                raise TypeError("frame ids and checksums are lists of texts")
            if not isinstance(entry.bytes, int) or (entry.error is not None and not 0 <= entry.error <= 1):
                raise TypeError("bytes is a whole number, error one from 0 to 1")
            complete = bool(views) and all(len(values) == len(entry.frame_ids) > 0 for values in views.values())
            complete = complete and entry.checksum == content["checksum"]
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise StoreError(f"a scene entry is malformed ({error!r})", where=where, fix=rebuild(where)) from None
        if not complete:
            raise StoreError("a scene entry contradicts its own checksum", where=where, fix=rebuild(where))
        return entry


def _window(content: Any) -> Window | None:
    if content is None:
        return None
    x0, y0, x1, y1 = (float(edge) for edge in content)
    return x0, y0, x1, y1


class Journal:
    """The file ``{folder}/journal.jsonl``: a header line with the spec digest, then one line per finished scene."""

    def __init__(self, path: Path):
        self.path = path

    def read(self, spec_digest: str) -> dict[str, SceneEntry] | None:
        """Read the finished scenes of a store of this spec; return None without a journal or when it is of another spec."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()  # a bad byte costs its line only
        except FileNotFoundError:
            return None
        found: dict[str, SceneEntry] = {}
        for number, line in enumerate(lines):
            try:
                content = json.loads(line)
                if number == 0:
                    if content["spec"] != spec_digest:
                        return None
                else:
                    scene_id = checked_id(content["scene"], what="scene id", where=str(self.path))
                    found[scene_id] = SceneEntry.from_json(content["entry"], where=str(self.path))
            except (json.JSONDecodeError, KeyError, TypeError, PipelineError):
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
        """Add a finished scene; it is on disk when this returns. A line that does not fit the disk is taken back."""
        size = self.path.stat().st_size
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"scene": scene_id, "entry": entry.to_json()}) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            os.truncate(self.path, size)
            raise

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
