"""The optional inputs of the report, made up: scenes with objects and annotations, predictions, training metrics, features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from box_rooms import make_scene, write_dataset

from pipeline.core.finished import digests_of
from pipeline.core.provenance import write_manifest
from pipeline.features.spec import StoreSpec
from pipeline.features.store import FeatureWriter
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex, write_index
from pipeline.scenes.types import Scene, SceneObject
from pipeline.study import paths
from pipeline.teachers.base import TeacherFeatures

TEACHERS = ("none", "geometry", "shuffled")
MEMBERS = {name: {"name": name, "kind": name, "options": {}} for name in ("scanrefer", "scanqa", "correspondence")}


def with_object(scene: Scene) -> Scene:
    """The scene with a chair two metres before its first camera."""
    pose = scene.record.world_from_camera[0]
    centre = pose[:3, 3] + 2.0 * pose[:3, 2]
    chair = SceneObject(0, "chair", (*centre.tolist(), 0.5, 0.5, 0.9))
    return replace(scene, record=replace(scene.record, objects=(chair,)))


def write_scenes(root: Path) -> Path:
    """A prepared dataset `rooms` with one training and three test scenes; its manifest."""
    scenes = [with_object(make_scene(f"room{i}", split="test" if i else "train")) for i in range(4)]
    folder = root / "results/scenes/rooms"
    write_dataset(folder, scenes, dataset="rooms")
    entries: dict[str, list[dict[str, Any]]] = {"scanrefer": [], "scanqa": []}
    for scene in scenes[1:]:
        common = {"scene_id": scene.scene_id}
        text = "a chair in the middle <of> the room"
        entries["scanrefer"].append(common | {"object_id": "0", "object_name": "chair", "ann_id": "0", "description": text})
        question = {
            "question_id": f"q-{scene.scene_id}",
            "question": "What stands in the middle?",
            "answers": ["chair", "a chair"],
        }
        entries["scanqa"].append(common | question | {"object_ids": [0], "object_names": ["chair"]})
    annotations = {}
    for name, content in entries.items():
        (folder / f"{name}_test.json").write_text(json.dumps(content))
        annotations[name] = {"test": [f"{name}_test.json"]}
    records = list(SceneIndex(folder / "manifest.json"))
    write_index(folder, records, dataset="rooms", root="posed_images", annotations=annotations, spec="")
    return folder / "manifest.json"


def write_predictions(root: Path, index: SceneIndex, teacher: str, seed: int = 0) -> Path:
    """Predictions of one run; `geometry` is right, the others are not."""
    run = {"dataset": "rooms", "backbone": "internvl_tiny", "teacher": teacher, "recipe": "3drs", "seed": seed}
    manifest = root / paths.PREDICTIONS.format(**run)
    manifest.parent.mkdir(parents=True)
    shift = {"geometry": 0.05, "none": 0.3, "shuffled": 1.2}[teacher]
    records = index.split("test")
    for benchmark in ("scanrefer", "scanqa"):
        rows = [
            {
                "sample_id": f"{record.scene_id}|0|0" if benchmark == "scanrefer" else f"q-{record.scene_id}",
                "scene_id": record.scene_id,
                "prompt": "",
                "answer": ("chair" if teacher == "geometry" else "table & <b>lamp</b>") if benchmark == "scanqa" else "",
                "parsed": True,
                "boxes": [(np.asarray(record.objects[0].box) + np.eye(6)[0] * shift).tolist()]
                if benchmark == "scanrefer"
                else [],
            }
            for record in records
        ]
        pq.write_table(pa.Table.from_pylist(rows), manifest.parent / f"{benchmark}.parquet")
    write_manifest(manifest, {"run": run, "files": digests_of(manifest.parent)})
    return manifest


def write_training(root: Path, backbone: str, teacher: str, seed: int = 0, steps: int = 200) -> Path:
    """Manifest and metrics.jsonl of one run; its last line is cut off, as a killed job leaves it."""
    run = {"dataset": "rooms", "backbone": backbone, "teacher": teacher, "recipe": "3drs", "seed": seed}
    manifest = root / paths.RUN_MANIFEST.format(**run)
    noise = np.random.default_rng(seed + len(teacher))
    lines = []
    for step in range(1, steps + 1):
        line: dict[str, Any] = {"step": step, "loss": 9.9, "grad_norm": 1.0, "learning_rate": {"a": 1e-4}, "step_s": 0.1}
        line |= {"question_tokens_per_s": 100.0, "scanqa": 3 * np.exp(-step / 90) + 0.2 * noise.random()}
        if step % 2:
            line["scanrefer"] = 2 * np.exp(-step / 120) + 0.3 * noise.random()
        if teacher != "none":
            line["alignment"] = 0.3 + np.exp(-step / 60) + 0.02 * noise.random()
        lines.append(json.dumps(line))
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.with_name("metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 2')
    write_manifest(manifest, {"run": run})
    return manifest


def write_features(root: Path, index: SceneIndex, teacher: str) -> Path:
    """Features of the training scenes: smooth functions of image position, another mixture for every teacher."""
    manifest = root / paths.FEATURES.format(dataset="rooms", teacher=teacher, shard="shard0")
    grid = TokenGrid(6, 8)
    spec = StoreSpec(dataset="rooms", teacher=teacher, kind=teacher, dim=16, rows=grid.rows, cols=grid.cols)
    mixture = np.random.default_rng(len(teacher)).normal(size=(3, 16))
    rows, cols = np.meshgrid(np.linspace(-1, 1, 6), np.linspace(-1, 1, 8), indexing="ij")
    with FeatureWriter(manifest.parent, spec) as writer:
        for record in index.split("train"):
            views = [np.stack([rows, cols, np.sin(3 * rows + v)], -1) @ mixture for v in range(len(record.frame_ids))]
            writer.write(record.scene_id, record.frame_ids, TeacherFeatures(np.stack(views).astype(np.float32), grid))
        writer.finish([record.scene_id for record in index.split("train")])
    return manifest
