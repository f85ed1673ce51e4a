"""The writer of scene folders, which every dataset uses: pictures, depth, poses and cameras, and a marker written last.

``pipeline.scenes.index`` lists the files. The marker, ``scene.json``, holds the scene's entry of the index and what else the
dataset wants to know of it. A folder without a marker, or with one that does not fit its files, is not finished and is made
again.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pipeline.core.errors import DataError, FrameError
from pipeline.core.provenance import read_manifest, write_manifest
from pipeline.scenes.conventions import DEPTH_UNIT_PER_M, SPLITS, checked_id
from pipeline.scenes.depth_quality import looked_at, with_depth_figures
from pipeline.scenes.index import files_checksum, read_depth, record_from_json, record_to_json, scene_checksum
from pipeline.scenes.source_images import opened
from pipeline.scenes.types import SceneObject, SceneRecord

MARKER = "scene.json"
JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class ScenePlace:
    """The place of one scene on the disk. The folder's name is the scene's id; ``spec`` is a digest of all that its files are
    made of.
    """

    folder: Path
    split: str
    spec: str

    @property
    def scene_id(self) -> str:
        return self.folder.name

    def finished(self) -> tuple[SceneRecord, dict[str, Any]] | None:
        """Record and facts of a finished scene; None when it is missing, damaged, or made from something else."""
        marker = self.folder / MARKER
        try:
            content = read_manifest(marker, made_by="")
            record, facts = record_from_json(content["record"], where=str(marker)), content["facts"]
            same = (content["spec"], record.split) == (self.spec, self.split)
            return (record, facts) if same and record.checksum == scene_checksum(self.folder, record.frame_ids) else None
        except (DataError, OSError, KeyError):
            return None


class SceneWriter:
    """Writes one scene: ``frame`` for each view, in any order and from several threads if you like, then ``finish``.

    ``frame_ids`` (V) and ``world_from_camera`` (V,4,4) are the views in order; ``intrinsics`` and ``depth_intrinsics`` (3,3)
    are in pixels of the colour and the depth images, and equal when only one is given. What was in the folder is removed.

    Raises DataError or FrameError that names ``source`` (default: the folder): unsafe or repeated ids, poses or cameras that
    are not finite, images of several sizes, a view without images, depth that cannot be that of a room.
    """

    def __init__(
        self,
        place: ScenePlace,
        frame_ids: Sequence[str],
        world_from_camera: ArrayLike,
        intrinsics: ArrayLike,
        depth_intrinsics: ArrayLike | None = None,
        *,
        source: str | None = None,
    ):
        self.place, self.source = place, source or str(place.folder)
        self.frame_ids = tuple(checked_id(i, what="frame id", where=self.source) for i in frame_ids)
        self.poses = np.asarray(world_from_camera, dtype=np.float64)
        self.cameras = [np.asarray(c, dtype=np.float64) for c in (intrinsics, intrinsics)]
        if depth_intrinsics is not None:
            self.cameras[1] = np.asarray(depth_intrinsics, dtype=np.float64)
        self._check_views()
        self._hashes: dict[str, str] = {}
        self._sizes: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {}
        self._depth_mm: dict[int, NDArray[np.uint16]] = {}
        self._looked_at = looked_at(len(self.frame_ids))
        if place.folder.exists():
            shutil.rmtree(place.folder)
        place.folder.mkdir(parents=True)
        for name, camera in zip(("intrinsic.txt", "depth_intrinsic.txt"), self.cameras, strict=True):
            square = np.eye(4)
            square[:3, :3] = camera
            self._write(name, _matrix_text(square))

    def frame(self, view: int, colour: NDArray[np.uint8] | bytes, depth_mm: NDArray[np.uint16]) -> None:
        """Write the images of one view: ``colour`` uint8 (H,W,3), or a JPEG file that is kept byte by byte; ``depth_mm`` uint16
        (H,W) in millimetres, 0 = invalid."""
        name = self.frame_ids[view]
        where = f"{self.source}, frame {name}"
        if isinstance(colour, bytes):
            with opened(colour, where) as image:
                size = image.height, image.width
        else:
            _check_image("colour", colour, np.uint8, 3, where)
            size = colour.shape[0], colour.shape[1]
            colour = jpeg_bytes(colour)
        _check_image("depth", depth_mm, np.uint16, 2, where)
        self._sizes[view] = size, (depth_mm.shape[0], depth_mm.shape[1])
        if view in self._looked_at:
            self._depth_mm[view] = depth_mm
        self._write(f"{name}.jpg", colour)
        self._write(f"{name}.png", depth_png(depth_mm))
        self._write(f"{name}.txt", _matrix_text(self.poses[view]))

    def finish(
        self,
        objects: Sequence[SceneObject] = (),
        proposals: NDArray[np.float64] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> SceneRecord:
        """Write the marker and return the scene's entry of the index.

        ``objects``: ground truth; ``proposals`` (N,6): boxes of a detector, None to choose among the objects; ``facts``: JSON
        that ``ScenePlace.finished`` gives back.
        """
        image_size, depth_size = self._common_sizes()
        self._check_objects(objects, proposals)
        record = SceneRecord(
            scene_id=self.place.scene_id,
            split=self.place.split,
            frame_ids=self.frame_ids,
            world_from_camera=self.poses,
            intrinsics=self.cameras[0],
            depth_intrinsics=self.cameras[1],
            image_size=image_size,
            depth_size=depth_size,
            objects=tuple(objects),
            proposals=proposals,
            checksum=files_checksum(self._hashes),
        )
        record = with_depth_figures(record, self._depth_m, where=self.source)
        content = {"spec": self.place.spec, "record": record_to_json(record), "facts": dict(facts or {})}
        # No fsync: a marker that survives a power cut without its files is found out by the checksum.
        write_manifest(self.place.folder / MARKER, content, durable=False)
        return record

    def _write(self, name: str, data: bytes) -> None:
        (self.place.folder / name).write_bytes(data)
        self._hashes[name] = hashlib.sha256(data).hexdigest()

    def _depth_m(self, view: int) -> NDArray[np.float32]:
        """Depth of a written view in metres (H,W): from memory for those that are looked at."""
        if view in self._depth_mm:
            return self._depth_mm[view].astype(np.float32) / np.float32(DEPTH_UNIT_PER_M)
        return read_depth(self.place.folder / f"{self.frame_ids[view]}.png")

    def _check_views(self) -> None:
        checked_id(self.place.scene_id, what="scene id", where=self.source)
        if self.place.split not in SPLITS:
            raise DataError(f"unknown split {self.place.split!r}", where=self.source, allowed=", ".join(SPLITS))
        views = len(self.frame_ids)
        if not views or len(set(self.frame_ids)) != views:
            raise FrameError(f"{views} views with {len(set(self.frame_ids))} different frame ids", where=self.source)
        if self.poses.shape != (views, 4, 4) or not np.isfinite(self.poses).all():
            what = f"poses of shape {self.poses.shape}, or not finite"
            raise FrameError(what, where=self.source, allowed=f"{(views, 4, 4)}; leave views without a pose out")
        for camera in self.cameras:
            if camera.shape != (3, 3) or not np.isfinite(camera).all():
                raise FrameError(f"intrinsics {camera.tolist()}", where=self.source, allowed="3 rows of 3 finite numbers")

    def _common_sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) of all colour and of all depth images."""
        for view, name in enumerate(self.frame_ids):
            if view not in self._sizes:
                raise FrameError("a view has no images", where=f"{self.source}, frame {name}")
            if self._sizes[view] != self._sizes[0]:
                what = f"colour and depth images are {self._sizes[view]} pixels (height, width)"
                raise FrameError(what, where=f"{self.source}, frame {name}", allowed=f"{self._sizes[0]} as the first view's")
        return self._sizes[0]

    def _check_objects(self, objects: Sequence[SceneObject], proposals: NDArray[np.float64] | None) -> None:
        if len({thing.object_id for thing in objects}) != len(objects):
            raise DataError("an object id comes twice", where=self.source)
        for boxes in (np.array([thing.box for thing in objects]), proposals):
            if boxes is not None and len(boxes) and not (boxes.shape[1:] == (6,) and np.isfinite(boxes).all()):
                raise DataError(
                    "a box is not six finite numbers", where=self.source, allowed="centre and edge lengths in metres"
                )


def remove_others(root: Path, scene_ids: Collection[str]) -> None:
    """Remove the scenes of an earlier, larger selection. Names that begin with a dot are no scenes."""
    for path in sorted(root.glob("[!.]*")):
        if path.is_dir() and path.name not in scene_ids:
            shutil.rmtree(path)


def jpeg_bytes(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """A JPEG file of uint8 (H,W,3), colour not subsampled."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def depth_png(depth_mm: NDArray[np.uint16]) -> bytes:
    """A 16-bit grey PNG file (W3C PNG specification) of uint16 (H,W).

    Every row has the filter Sub and zlib's fastest level: twice as fast as Pillow at its fastest level, for files of the same
    size (640 x 480 with a sensor's noise: 9 instead of 20 ms, 337 instead of 348 kB).
    """
    height, width = depth_mm.shape
    big_endian = np.ascontiguousarray(depth_mm, dtype=">u2").view(np.uint8).reshape(height, 2 * width)
    rows = np.empty((height, 1 + 2 * width), dtype=np.uint8)
    rows[:, 0] = 1  # the filter Sub: each value minus the one before it
    rows[:, 1:3] = big_endian[:, :2]
    np.subtract(big_endian[:, 2:], big_endian[:, :-2], out=rows[:, 3:])
    header = struct.pack(">2I5B", width, height, 16, 0, 0, 0, 0)  # 16 bits of grey, not interlaced
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, level=1)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _matrix_text(matrix: NDArray[np.float64]) -> bytes:
    return "".join(" ".join(f"{v:.7f}" for v in row) + "\n" for row in matrix).encode()


def _check_image(what: str, image: NDArray[Any], dtype: type, axes: int, where: str) -> None:
    if image.dtype != dtype or image.ndim != axes or not image.size or (axes == 3 and image.shape[2] != 3):
        raise FrameError(
            f"a {what} image of shape {image.shape} and type {image.dtype}",
            where=where,
            allowed="uint8 (H, W, 3)" if what == "colour" else "uint16 (H, W), millimetres",
        )
