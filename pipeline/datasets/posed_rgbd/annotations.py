"""Objects from a box file and official annotation files, for scenes that have them.

Box file, JSON: ``{scene id: {"objects": [{"object_id": 0, "category": "chair", "box": [cx, cy, cz, dx, dy, dz]}, ...],
"proposals": [[cx, cy, cz, dx, dy, dz], ...]}}``; ``proposals`` may be left out. Boxes are in metres and in the aligned world.
Annotation files are copied unchanged, under their official names; the benchmarks read and check them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import AnnotationError
from pipeline.core.options import did_you_mean
from pipeline.scenes.conventions import SPLITS
from pipeline.scenes.types import SceneObject, SceneRecord

OFFICIAL: dict[str, tuple[str, ...]] = {
    "scanrefer": ("ScanRefer_filtered_{split}.json",),
    "multi3drefer": ("multi3drefer_{split}.json",),
    "scan2cap": ("ScanRefer_filtered_{split}.json",),
    "scanqa": ("ScanQA_v1.0_{split}.json",),
    "sqa3d": ("v1_balanced_questions_{split}_scannetv2.json", "v1_balanced_sqa_annotations_{split}_scannetv2.json"),
    "vsibench": ("{split}.jsonl",),
}
"""Benchmark -> its official file names. Of VSI-Bench there is a test set only: test.jsonl."""
HIDDEN = {("scanqa", "test"): ("ScanQA_v1.0_test_w_obj.json", "ScanQA_v1.0_test_wo_obj.json")}
"""Questions without answers, which name no object: those of the two files that are there, where the usual one is not."""
WITHOUT_OBJECTS = ("sqa3d", "vsibench")
"""Benchmarks whose annotations name no object ids."""


def with_objects(records: Sequence[SceneRecord], path: Path) -> list[SceneRecord]:
    """Records with the objects and proposals of a box file. AnnotationError names the entry at fault."""
    content = _read(path)
    known = {record.scene_id for record in records}
    if not isinstance(content, dict):
        raise AnnotationError(
            f"{path} does not hold a mapping of scene ids", allowed="see pipeline/datasets/posed_rgbd/annotations.py"
        )
    for scene_id in content:
        if scene_id not in known:
            raise AnnotationError(
                f"{path} has boxes of scene {scene_id!r}, which is not prepared{did_you_mean(scene_id, known)}",
                allowed=", ".join(sorted(known)[:20]),
            )
    return [_with_objects(record, content.get(record.scene_id), f"{path}, {record.scene_id}") for record in records]


def _with_objects(record: SceneRecord, entry: Any, where: str) -> SceneRecord:
    if entry is None:
        return record
    if not isinstance(entry, dict) or not set(entry) <= {"objects", "proposals"}:
        raise AnnotationError("a scene's entry is malformed", where=where, allowed='{"objects": [...], "proposals": [...]}')
    if not isinstance(entry.get("objects", []), list) or not isinstance(entry.get("proposals"), list | None):
        raise AnnotationError("objects or proposals are not a list", where=where, allowed="lists of objects and of boxes")
    objects = tuple(_object(item, f"{where}, object {i}") for i, item in enumerate(entry.get("objects", [])))
    ids = [thing.object_id for thing in objects]
    if len(set(ids)) != len(ids):
        raise AnnotationError("an object id comes twice", where=where)
    proposals = entry.get("proposals")
    if proposals is not None:
        boxes = [_box(box, f"{where}, proposal {i}") for i, box in enumerate(proposals)]
        return replace(record, objects=objects, proposals=np.array(boxes, dtype=np.float64).reshape(-1, 6))
    return replace(record, objects=objects)


def _object(item: Any, where: str) -> SceneObject:
    if not isinstance(item, dict) or not {"object_id", "category", "box"} <= set(item):
        raise AnnotationError("an object is malformed", where=where, allowed="object_id, category and box")
    object_id, category = item["object_id"], item["category"]
    if isinstance(object_id, bool) or not isinstance(object_id, int) or object_id < 0:
        raise AnnotationError(f"object_id is {object_id!r}", where=where, allowed="a whole number, 0 or more")
    if not isinstance(category, str) or not category.strip():
        raise AnnotationError(f"category is {category!r}", where=where, allowed="a string that is not blank")
    cx, cy, cz, dx, dy, dz = _box(item["box"], where).tolist()
    return SceneObject(object_id, category.strip(), (cx, cy, cz, dx, dy, dz))


def _box(value: Any, where: str) -> NDArray[np.float64]:
    """Six finite numbers, the last three above 0."""
    try:
        box = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        box = np.empty(0)
    if box.shape != (6,) or not np.isfinite(box).all() or (box[3:] <= 0).any():
        raise AnnotationError(f"box is {value!r}", where=where, allowed="six finite numbers, edge lengths above 0")
    return box


def official_names(source: Path, benchmark: str, split: str) -> tuple[list[str], bool]:
    """Names of a benchmark's files, and whether they are those in ``source`` that hide the answers."""
    names = [pattern.format(split=split) for pattern in OFFICIAL.get(benchmark, ())]
    hidden = [name for name in HIDDEN.get((benchmark, split), ()) if (source / name).is_file()]
    if hidden and not any((source / name).is_file() for name in names):
        return hidden, True
    return names, False


def official_files(source: Path, splits: Iterable[str], *, with_boxes: bool) -> dict[str, dict[str, dict[str, bytes]]]:
    """Benchmark -> split -> name -> bytes of the official files of ``splits``.

    AnnotationError when there is none, when one is not JSON, when one of a pair is missing, and when annotations name
    objects but ``with_boxes`` is False.
    """
    found: dict[str, dict[str, dict[str, bytes]]] = {}
    wanted = [split for split in SPLITS if split in set(splits)]
    for split in wanted:
        for benchmark in OFFICIAL:
            names, hidden = official_names(source, benchmark, split)
            there = [name for name in names if (source / name).is_file()]
            if not there:
                continue
            if there != names:
                raise AnnotationError(f"{', '.join(set(names) - set(there))} is missing", where=str(source))
            if not with_boxes and not hidden and benchmark not in WITHOUT_OBJECTS:
                raise AnnotationError(
                    f"{names[0]} names objects, but there is no box file",
                    where=str(source),
                    fix="give the option objects: a JSON file of boxes",
                )
            for name in names:
                _read(source / name)
            found.setdefault(benchmark, {})[split] = {name: (source / name).read_bytes() for name in names}
    if not found:
        names = sorted({pattern.format(split=split) for split in wanted for files in OFFICIAL.values() for pattern in files})
        raise AnnotationError("there is no official annotation file", where=str(source), allowed=", ".join(names))
    return found


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line.strip()] if path.suffix == ".jsonl" else json.loads(text)
    except FileNotFoundError:
        raise AnnotationError(f"{path} is missing") from None
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is not valid JSON ({error})", fix="get the file again") from None
