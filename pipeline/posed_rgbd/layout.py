"""One scene in the posed RGB-D layout, with a marker written last: a scene is whole or it is written again."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import DataError
from pipeline.index import files_checksum, record_from_json, record_to_json, scene_checksum
from pipeline.png import depth_png
from pipeline.provenance import write_atomic
from pipeline.scene import SceneRecord

MARKER = "scene.json"
JPEG_QUALITY = 95
"""For colour that is not JPEG already (JPEG files are copied byte for byte)."""


class SceneWriter:
    """Writes the files of one scene and remembers their hashes. A folder that is there is replaced."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hashes: dict[str, str] = {}
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)

    def write(self, name: str, data: bytes) -> None:
        """One file."""
        (self.folder / name).write_bytes(data)
        self.hashes[name] = hashlib.sha256(data).hexdigest()

    def frame(self, frame_id: str, colour: bytes, depth_mm: NDArray[np.uint16], pose: NDArray[np.float64]) -> None:
        """JPEG bytes, depth (H,W) and world from camera (4,4) of one frame."""
        self.write(f"{frame_id}.jpg", colour)
        self.write(f"{frame_id}.png", depth_png(depth_mm))
        self.write(f"{frame_id}.txt", matrix_text(pose))

    def checksum(self) -> str:
        """Digest over all files written."""
        return files_checksum(self.hashes)

    def finish(self, fingerprint: str, record: SceneRecord, facts: Mapping[str, Any]) -> None:
        """Write the marker; ``facts`` (counts, alignment) stand in it for whoever wants to know."""
        marker = {"fingerprint": fingerprint, "record": record_to_json(record), "facts": dict(facts)}
        write_atomic(self.folder / MARKER, json.dumps(marker, sort_keys=True, indent=1) + "\n")


def read_scene(folder: Path, fingerprint: str) -> tuple[SceneRecord, dict[str, Any]] | None:
    """Record and facts of a finished scene; None when it is not there, not whole, or made from other input."""
    path = folder / MARKER
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["fingerprint"] != fingerprint:
            return None
        record = record_from_json(content["record"], where=str(path))
        checksum = scene_checksum(folder, record.frame_ids)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, DataError):
        return None
    return (record, content["facts"]) if record.checksum == checksum else None


def matrix_text(matrix: NDArray[np.float64]) -> bytes:
    """A matrix as lines of numbers with seven decimals."""
    return "".join(" ".join(f"{v:.7f}" for v in row) + "\n" for row in matrix).encode()


def intrinsics_text(camera: NDArray[np.float64]) -> bytes:
    """Intrinsics (3,3) as the 4x4 matrix of the layout."""
    square = np.eye(4)
    square[:3, :3] = camera
    return matrix_text(square)


def jpeg_bytes(image: NDArray[np.uint8]) -> bytes:
    """A JPEG file of uint8 (H,W,3), colour not subsampled."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()
