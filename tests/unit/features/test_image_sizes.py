"""Scenes with images of different sizes: said by `prepare`, and stored on one grid or refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_rooms import make_scene, write_dataset
from posed_rgbd_files import write_scannet

from pipeline.__main__ import main
from pipeline.core.errors import DataError
from pipeline.core.registry import create
from pipeline.doctor.selection import grid_needs, select
from pipeline.features.resample import resample_features
from pipeline.features.store import FeatureReader
from pipeline.scenes.index import SceneIndex
from pipeline.study.config import StudyConfig
from pipeline.teachers.vggt.config import ROOMS
from pipeline.teachers.vggt.pretrain import Plan, pretrain

RANDOM: dict[str, Any] = {"name": "random", "kind": "random", "options": {}}
"""An untrained VGGT: its grid depends on the shape of the images."""
GEOMETRY = {"name": "geometry", "kind": "geometry", "options": {"grid_rows": 3, "grid_cols": 4}}
"""Its grid does not."""
WIDE, NARROW = (48, 64), (32, 64)
STUDENT = {"rows": 3, "cols": 4}


@pytest.fixture
def mixed(tmp_path: Path) -> SceneIndex:
    sizes = {"box0": WIDE, "box1": WIDE, "box2": NARROW}
    scenes = [make_scene(name, views=2, size=size) for name, size in sizes.items()]
    return write_dataset(tmp_path / "scenes", [*scenes, make_scene("seen", views=2, size=WIDE, split="test")])


def extract(index: SceneIndex, out: Path, teacher: dict[str, Any], grid: Any) -> int:
    spec = {"dataset": "boxes", "teacher": teacher, "shard": 0, "shards": 1, "splits": ["train"], "code": "x"}
    spec["store"] = {"dtype": "float32", "grid": grid}
    return main(["extract", "--spec", json.dumps(spec), "--scenes", str(index.path), "--out", str(out)])


def test_a_students_grid_takes_images_of_every_size(mixed: SceneIndex, tmp_path: Path) -> None:
    """Each scene is averaged from the teacher's grid for its own images."""
    out, teacher = tmp_path / "features/manifest.json", create("teachers", RANDOM)
    assert extract(mixed, out, RANDOM, STUDENT) == 0
    teacher.load(None, "cpu")
    reader = FeatureReader([out])
    grids = set()
    for scene_id in reader.scene_ids:
        own = teacher.encode(mixed.load(scene_id))
        grids.add(own.grid)
        expected = resample_features(own, reader.grid)
        np.testing.assert_allclose(reader.read(scene_id, mixed.records[scene_id].frame_ids).tokens, expected.tokens, atol=1e-5)
    assert len(grids) == 2


def test_the_teachers_own_grid_is_refused_at_once_with_a_grid_that_works(mixed: SceneIndex, tmp_path: Path, capsys) -> None:
    out = tmp_path / "features/manifest.json"
    assert extract(mixed, out, RANDOM, "native") == 2
    said = capsys.readouterr().err
    assert "48x64 pixels (box0, ...)" in said
    assert "32x64 pixels (box2, ...)" in said
    assert not (out.parent / "scenes.jsonl").exists()
    assert not list(out.parent.glob("*/box0")), "nothing was encoded"
    own = create("teachers", RANDOM).grid(*WIDE)
    assert f"features: {{grid: {{rows: {own.rows}, cols: {own.cols}}}}}" in said
    assert extract(mixed, out, RANDOM, {"rows": own.rows, "cols": own.cols}) == 0


def test_a_teacher_that_sees_all_sizes_on_one_grid_needs_nothing(mixed: SceneIndex, tmp_path: Path) -> None:
    assert extract(mixed, tmp_path / "features/manifest.json", GEOMETRY, "native") == 0


def test_doctor_says_it_too(mixed: SceneIndex) -> None:
    content = {
        "datasets": {"boxes": {"kind": "rooms"}},
        "teachers": {"random": None, "geometry": None},
        "backbones": {"internvl_tiny": {"kind": "internvl", "size": "tiny", "pretrain": {"dataset": "boxes"}}},
        "recipes": {"3drs": {"train_on": ["scanrefer"]}},
        "benchmarks": {"scanrefer": None},
    }
    needs = grid_needs(select(StudyConfig(content)), {"boxes": mixed})
    assert [need.what.split(":")[0] for need in needs] == ["boxes"]
    assert "features: {grid:" in needs[0].fix
    stored = StudyConfig(content | {"features": {"grid": STUDENT}})
    assert grid_needs(select(stored), {"boxes": mixed}) == []


def test_a_teacher_is_not_trained_on_several_shapes(mixed: SceneIndex, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images of several shapes: 48x64 .*, 32x64 \(box2\)"):
        pretrain(mixed, tmp_path, ROOMS, Plan(1, 1, 0.5, 1e-3, 1, 1, 1e-3, 0), "cpu")


def test_prepare_says_that_sizes_differ(tmp_path: Path, capsys) -> None:
    for name, size in (("a", WIDE), ("b", NARROW), ("c", WIDE)):
        write_scannet(tmp_path / "scans" / name, make_scene(name, views=2, size=size))
    options = {"root": str(tmp_path / "scans")}
    spec = json.dumps({"dataset": {"name": "mixed", "kind": "posed_rgbd", "options": options}})
    assert main(["prepare", "--spec", spec, "--out", str(tmp_path / "out/manifest.json")]) == 0
    assert "warning: mixed: 1 of 3 scenes have images of another size than 48x64" in capsys.readouterr().out
    assert SceneIndex(tmp_path / "out/manifest.json").notes[0].scenes == ("b",)
