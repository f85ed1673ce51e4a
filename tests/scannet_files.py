"""Small scans in the released file formats of ScanNet v2, written for tests: their content is built-in rooms, not ScanNet.

``write_release`` makes training, validation and test scans with streams, meshes, segments, labels, masks, lists and the
benchmarks' files; odd frames of a stream hold no images at all, and one frame of each has a pose of -inf.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import sparse

from pipeline.core import registry
from pipeline.datasets._film.film import BuiltRoom
from pipeline.datasets._language.annotate import annotate
from pipeline.datasets._language.facts import RoomFacts, facts_from_json, facts_of
from pipeline.datasets.base import contents
from pipeline.datasets.rooms import RoomsOptions
from pipeline.datasets.rooms.scene import build_room
from pipeline.scenes.index import SceneIndex

SCANS = {"scene0000_00": "train", "scene0010_01": "train", "scene0011_00": "val", "scene0707_00": "test"}
DEPTH_SIZE, COLOR_SIZE = (72, 96), (108, 144)
VIEWS = 5
STEP = 2
INVALID_FRAME = 4
"""Frame number with a pose of -inf; candidates are 0, 2, 4, ..."""
NO_IMAGE = b"not an image: this frame must not be read"
EMPTY_MASK = 1
UNLISTED = "plant"
"""A name that the label table does not have."""


@cache
def room(scan: str) -> tuple[BuiltRoom, RoomFacts]:
    """The room behind a scan, and its facts under the scan's id."""
    built = build_room(("scannet", scan), views=VIEWS, size=DEPTH_SIZE, objects=(5, 8))
    return built, facts_from_json(facts_of(scan, built))


def alignment(scan: str) -> np.ndarray:
    """Axis alignment (4,4): aligned = alignment @ stored. Scans of the split test have none."""
    matrix = np.eye(4)
    if SCANS[scan] != "test":
        angle = 0.4 + 0.1 * int(scan[5:9])
        matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix[:3, 3] = [1.25, -0.5, 0.125]
    return matrix


def sens_bytes(
    frames: list[tuple[np.ndarray, bytes, bytes]],
    *,
    color_intrinsics: np.ndarray,
    depth_intrinsics: np.ndarray,
    color_size: tuple[int, int] = COLOR_SIZE,
    depth_size: tuple[int, int] = DEPTH_SIZE,
    version: int = 4,
    compressions: tuple[int, int] = (2, 1),
    shift: float = 1000.0,
) -> bytes:
    """A .sens stream of (pose, colour payload, depth payload), without the trailing IMU data."""
    name = b"StructureSensor"
    parts = [struct.pack("<IQ", version, len(name)), name]
    for matrix in (color_intrinsics, np.eye(4), depth_intrinsics, np.eye(4)):
        parts.append(np.asarray(matrix, dtype="<f4").tobytes())
    parts.append(struct.pack("<2i", *compressions))
    parts.append(struct.pack("<4I", color_size[1], color_size[0], depth_size[1], depth_size[0]))
    parts.append(struct.pack("<fQ", shift, len(frames)))
    for number, (pose, color, depth) in enumerate(frames):
        parts.append(np.asarray(pose, dtype="<f4").tobytes())
        parts.append(struct.pack("<4Q", 33_000 * number, 33_000 * number, len(color), len(depth)))
        parts += [color, depth]
    return b"".join(parts)


def jpeg(rgb: np.ndarray, size: tuple[int, int] = COLOR_SIZE) -> bytes:
    """A JPEG file of the image at ``size`` (height, width)."""
    stream = io.BytesIO()
    Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(stream, format="JPEG", quality=95)
    return stream.getvalue()


def square(matrix: np.ndarray) -> np.ndarray:
    """Intrinsics (3,3) as the 4x4 matrix of the files."""
    full = np.eye(4)
    full[:3, :3] = matrix
    return full


def color_camera(built: BuiltRoom) -> np.ndarray:
    """Intrinsics (3,3) of the colour images."""
    ratio = COLOR_SIZE[0] / DEPTH_SIZE[0]
    camera = built.matrix * ratio
    camera[2, 2] = 1
    camera[:2, 2] = (built.matrix[:2, 2] + 0.5) * ratio - 0.5
    return camera


def stream(scan: str, *, shift: float = 1000.0, **changes: Any) -> bytes:
    """The scan's .sens stream: views at frames 0, 2, 6, 8, ..., nothing usable between them."""
    built, _ = room(scan)
    stored = np.linalg.inv(alignment(scan)) @ built.poses
    frames: list[tuple[np.ndarray, bytes, bytes]] = []
    for view in range(VIEWS):
        depth = np.rint(built.depth_mm[view] * (shift / 1000)).astype("<u2")
        frames.append((stored[view], jpeg(built.rgb[view]), zlib.compress(depth.tobytes())))
        frames.append((np.full((4, 4), np.nan), NO_IMAGE, NO_IMAGE))
    lost = (np.full((4, 4), -np.inf), frames[0][1], frames[0][2])
    frames[INVALID_FRAME:INVALID_FRAME] = [lost, (stored[0], NO_IMAGE, NO_IMAGE)]
    cameras = {"color_intrinsics": square(color_camera(built)), "depth_intrinsics": square(built.matrix)}
    return sens_bytes(frames, shift=shift, **(cameras | changes))


def _surface(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Points (N,3) on the faces of a box, corners included."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    on_faces = grid[((grid == 0) | (grid == 1)).any(1)]
    return np.asarray(low) + on_faces * (np.asarray(high) - np.asarray(low))


def mesh(scan: str) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Aligned vertices (N,3), their segments (N,) and the aggregation's groups: the things, and the floor last."""
    _, facts = room(scan)
    x0, y0, x1, y1 = facts.bounds
    boxes = [(t.object_id, t.category, _surface(np.array(t.low), np.array(t.high))) for t in facts.things]
    floor = _surface(np.array([x0, y0, -0.05]), np.array([x1, y1, 0.0]))
    boxes.append((1 + max(t.object_id for t in facts.things), "floor", floor))
    points, segments, groups = [], [], []
    for number, (object_id, category, surface) in enumerate(boxes):
        names = [100 * number + 7, 100 * number + 3]
        points.append(surface)
        segments.append(np.where(np.arange(len(surface)) % 2, names[0], names[1]))
        groups.append({"id": number, "objectId": object_id, "segments": names, "label": category})
    points.append(_surface(np.array([x0, y0, 2.0]), np.array([x1, y1, 2.5])))  # belongs to no object
    segments.append(np.full(len(points[-1]), 99_999))
    order = np.random.default_rng(0).permutation(sum(map(len, points)))
    return np.concatenate(points)[order], np.concatenate(segments)[order], groups


def ply_bytes(vertices: np.ndarray, *, faces: int = 20, text_format: str = "binary_little_endian 1.0") -> bytes:
    """A mesh file as released: x y z, red green blue alpha, triangles."""
    header = f"ply\nformat {text_format}\ncomment made for tests\nelement vertex {len(vertices)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue", "alpha"))
    header += f"element face {faces}\nproperty list uchar int vertex_indices\nend_header\n"
    layout = np.dtype([("xyz", "<f4", 3), ("rgba", "u1", 4)])
    rows = np.zeros(len(vertices), dtype=layout)
    rows["xyz"] = vertices
    triangles = b"".join(struct.pack("<B3i", 3, i, i + 1, i + 2) for i in range(faces))
    return header.encode() + rows.tobytes() + triangles


def write_scan(root: Path, scan: str) -> None:
    """One scan's released files, and its masks: every second thing, and an empty mask among them."""
    folder = root / "scans" / scan
    folder.mkdir(parents=True, exist_ok=True)
    vertices, segments, groups = mesh(scan)
    move = np.linalg.inv(alignment(scan))
    lines = ["colorHeight = 108", "numDepthFrames = 12", f"sceneType = {scan}"]
    if SCANS[scan] != "test":
        lines.insert(0, "axisAlignment = " + " ".join(f"{v:.6f}" for v in alignment(scan).ravel()) + " ")
        content = {"params": {}, "sceneId": scan, "segIndices": segments.tolist()}
        (folder / f"{scan}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(content))
        content = {"sceneId": f"scannet.{scan}", "appId": "test", "segGroups": groups, "segmentsFile": "scannet"}
        (folder / f"{scan}.aggregation.json").write_text(json.dumps(content))
    (folder / f"{scan}.txt").write_text("\n".join(lines) + "\n")
    (folder / f"{scan}_vh_clean_2.ply").write_bytes(ply_bytes(vertices @ move[:3, :3].T + move[:3, 3]))
    (folder / f"{scan}.sens").write_bytes(stream(scan))
    masks = [np.isin(segments, group["segments"]) for group in groups]
    masks.insert(EMPTY_MASK, np.zeros(len(vertices), dtype=bool))
    (root / "mask").mkdir(exist_ok=True)
    sparse.save_npz(root / "mask" / f"{scan}.mask.npz", sparse.csr_matrix(np.array(masks).astype(np.float32)))


def write_labels(path: Path) -> None:
    """A label table with the columns that are read and two that are not; ``UNLISTED`` is left out."""
    numbers = {
        "bed": 4,
        "bookshelf": 10,
        "cabinet": 3,
        "chair": 5,
        "desk": 14,
        "floor": 2,
        "lamp": 35,
        "picture": 11,
        "sofa": 6,
    }
    classes = {name: (number, name) for name, number in {**numbers, "table": 7}.items()}
    used = {thing.category for scan in SCANS for thing in room(scan)[1].things} | {"floor"}
    rows = [f"{i}\t{n}\t{n}\t" + "\t".join(map(str, classes.get(n, (40, "otherprop")))) for i, n in enumerate(sorted(used))]
    rows = [row for row in rows if row.split("\t")[1] != UNLISTED]
    path.write_text("id\traw_category\tcategory\tnyu40id\tnyu40class\n" + "\n".join(rows) + "\n")


def write_annotations(folder: Path) -> None:
    """The benchmarks' official files. SQA3D's questions about validation scans are under its names for test."""
    folder.mkdir(parents=True, exist_ok=True)
    rooms = [(split, room(scan)[1]) for scan, split in SCANS.items() if split != "test"]
    for name, content in contents(annotate(rooms, RoomsOptions())).items():
        official = name.replace("_val_", "_test_") if name.startswith("v1_balanced") else name
        (folder / official).write_text(json.dumps(content))


def write_release(root: Path) -> dict[str, Any]:
    """A whole small release under ``root``; returns the options that read it."""
    for scan in SCANS:
        write_scan(root, scan)
    for split in ("train", "val", "test"):
        (root / f"scannetv2_{split}.txt").write_text("".join(f"{s}\n" for s, named in SCANS.items() if named == split))
    write_labels(root / "scannetv2-labels.combined.tsv")
    write_annotations(root / "annotations")
    return {
        "root": str(root),
        "test_scenes": "{root}/scannetv2_test.txt",
        "frame_step": STEP,
        "frames": {"strategy": "uniform", "count": VIEWS},
    }


def export(root: Path, scan: str) -> Path:
    """The scan's frames as an exported folder (posed_images), all candidates of the stream, -inf poses included."""
    built, _ = room(scan)
    folder = root / "posed_images" / scan
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.linalg.inv(alignment(scan)) @ built.poses
    np.savetxt(folder / "intrinsic.txt", square(color_camera(built)))
    np.savetxt(folder / "depth_intrinsic.txt", square(built.matrix))
    numbers = [STEP * v if STEP * v < INVALID_FRAME else STEP * (v + 1) for v in range(VIEWS)]
    for view, number in enumerate(numbers):
        (folder / f"{number:05d}.jpg").write_bytes(jpeg(built.rgb[view]))
        Image.fromarray(built.depth_mm[view]).save(folder / f"{number:05d}.png")
        np.savetxt(folder / f"{number:05d}.txt", stored[view], fmt="%f")
    (folder / f"{INVALID_FRAME:05d}.jpg").write_bytes(jpeg(built.rgb[0]))
    Image.fromarray(built.depth_mm[0]).save(folder / f"{INVALID_FRAME:05d}.png")
    np.savetxt(folder / f"{INVALID_FRAME:05d}.txt", np.full((4, 4), -np.inf), fmt="%f")
    return folder


def prepare(options: dict[str, Any], folder: Path, threads: int = 1) -> SceneIndex:
    """Prepare the dataset kind scannet with these options in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    member = {"name": "scannet", "kind": "scannet", "options": options}
    registry.create("datasets", member).prepare(folder, threads=threads)
    return SceneIndex(folder / "manifest.json")


def report(index: SceneIndex) -> dict[str, Any]:
    """What the preparation left out."""
    content: dict[str, Any] = json.loads((index.root / "report.json").read_text())
    return content
