"""Every dataset kind, found by scanning the folder, keeps the contract of pipeline/datasets/base.py.

A kind without an ``example`` is prepared with its defaults; kinds that read files of others need a small set of them, which
``SOURCES`` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import front3d_files
import numpy as np
import posed_rgbd_files
import pytest
import scannet_files

from pipeline.core import registry
from pipeline.datasets.base import Dataset
from pipeline.scenes.conventions import SPLITS, is_name
from pipeline.scenes.geometry import inside_box, unproject
from pipeline.scenes.index import SceneIndex

KINDS = sorted(registry.member_files("datasets"))
SOURCES: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "front3d": front3d_files.write_front3d,
    "posed_rgbd": posed_rgbd_files.conformance_sources,
    "scannet": scannet_files.write_release,
}
"""Kind -> function that writes source files into a folder and returns the options that point to them."""


def make(kind: str, folder: Path, sources: Path) -> dict[str, Any]:
    """Prepare a miniature of ``kind`` in ``folder``; its options."""
    options = dict(registry.member_class("datasets", kind).example)
    if kind in SOURCES:
        sources.mkdir(parents=True, exist_ok=True)
        options |= SOURCES[kind](sources)
    folder.mkdir(parents=True)
    registry.create("datasets", {"name": "example", "kind": kind, "options": options}).prepare(folder, threads=1)
    return options


@pytest.fixture(scope="module", params=KINDS)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SceneIndex]:
    base = tmp_path_factory.mktemp(f"dataset_{request.param}")
    make(request.param, base / "scenes", base / "sources")
    return request.param, SceneIndex(base / "scenes" / "manifest.json")


def test_the_built_in_kind_is_found() -> None:
    assert "rooms" in KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_description(kind: str) -> None:
    cls = registry.member_class("datasets", kind)
    assert is_name(kind)
    assert cls.licence != Dataset.licence, "say under which terms the scenes may be used"
    assert issubclass(cls, Dataset)
    assert all(field.description for field in cls.options_model.model_fields.values())


def test_scenes_are_whole(prepared: tuple[str, SceneIndex]) -> None:
    _, index = prepared
    records = list(index)
    assert records
    assert {record.split for record in records} <= set(SPLITS)
    assert [r for split in SPLITS for r in index.split(split)] == sorted(records, key=lambda r: SPLITS.index(r.split))
    for record in records:
        scene = index.load(record.scene_id)
        views = len(record.frame_ids)
        assert len(set(record.frame_ids)) == views > 0
        assert scene.rgb.shape == (views, *record.image_size, 3)
        assert scene.rgb.std() > 5, "pictures show something"
        assert scene.depth_m.shape == (views, *record.depth_size)
        assert 0.3 < np.median(scene.depth_m[scene.depth_m > 0]) < 20, "metres"
        assert (scene.depth_m > 0).mean() > 0.3


def test_poses_are_rigid_and_cameras_see(prepared: tuple[str, SceneIndex]) -> None:
    for record in prepared[1]:
        rotation = record.world_from_camera[:, :3, :3]
        np.testing.assert_allclose(
            rotation @ rotation.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-4
        )
        assert (np.linalg.det(rotation) > 0.99).all()
        np.testing.assert_array_equal(record.world_from_camera[:, 3], np.tile([0, 0, 0, 1], (len(rotation), 1)))
        for camera, (height, width) in (
            (record.intrinsics, record.image_size),
            (record.depth_intrinsics, record.depth_size),
        ):
            assert 0.3 < camera[0, 0] / width < 3
            assert 0 < camera[0, 2] < width
            assert 0 < camera[1, 2] < height


def test_views_of_a_scene_agree(prepared: tuple[str, SceneIndex]) -> None:
    """Points of one view, projected into another, lie at the depth measured there: poses, intrinsics and depth fit."""
    errors = [_disagreement(index.load(record.scene_id)) for index in [prepared[1]] for record in index]
    found = np.concatenate(errors)
    assert len(found) > 100, "some views overlap"
    assert np.median(found) < 0.03


def _disagreement(scene: Any) -> np.ndarray:
    """Absolute differences in metres of projected and measured depth, over pixels that two views both see."""
    record = scene.record
    points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    found = [np.empty(0)]
    for one in range(len(points)):
        for two in range(len(points)):
            if one == two:
                continue
            camera = np.linalg.inv(record.world_from_camera[two])
            seen = points[one][valid[one]] @ camera[:3, :3].T + camera[:3, 3]
            seen = seen[seen[:, 2] > 0.2]
            image = seen @ record.depth_intrinsics.T
            u, v = (np.round(image[:, i] / image[:, 2]).astype(int) for i in (0, 1))
            height, width = record.depth_size
            inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
            measured = scene.depth_m[two][v[inside], u[inside]]
            difference = np.abs(measured - seen[inside, 2])[measured > 0]
            found.append(difference[difference < 0.3])  # farther apart: one hides the other
    return np.concatenate(found)


def test_objects_are_where_their_boxes_are(prepared: tuple[str, SceneIndex]) -> None:
    shown = []
    for record in prepared[1]:
        assert len({o.object_id for o in record.objects}) == len(record.objects)
        if record.proposals is not None:
            assert record.proposals.ndim == 2
            assert record.proposals.shape[1] == 6
            assert (record.proposals[:, 3:] > 0).all()
        scene = prepared[1].load(record.scene_id)
        points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
        for thing in record.objects:
            box = np.array(thing.box)
            assert np.isfinite(box).all()
            assert (box[3:] > 0).all()
            assert thing.category == thing.category.strip() != ""
            box[3:] += 0.04
            shown.append(inside_box(points, valid, box).sum() > 5)
    if shown:
        assert np.mean(shown) > 0.7, "most annotated objects are seen"


def test_annotations_are_read_by_their_benchmarks(prepared: tuple[str, SceneIndex]) -> None:
    """What the manifest names as a benchmark's annotation, that benchmark reads; ids exist; every split has its own."""
    kind, index = prepared
    for benchmark, splits in index.content["annotations"].items():
        if benchmark not in registry.member_files("benchmarks"):
            continue
        member = registry.create("benchmarks", {"name": benchmark, "kind": benchmark, "options": {}})
        for split in splits:
            samples = member.samples(index, split)
            assert samples, f"{kind}: {benchmark} has no samples in {split}"
            assert {s.scene_id for s in samples} <= {r.scene_id for r in index.split(split)}
            for sample in samples:
                known = {o.object_id for o in index.records[sample.scene_id].objects}
                assert set(sample.target_ids) <= known


def test_prepared_twice_is_the_same_and_nothing_is_made_again(prepared: tuple[str, SceneIndex], tmp_path: Path) -> None:
    kind, index = prepared
    options = make(kind, tmp_path / "scenes", tmp_path / "sources")
    again = SceneIndex(tmp_path / "scenes" / "manifest.json")
    assert [(r.scene_id, r.checksum, r.frame_ids) for r in again] == [(r.scene_id, r.checksum, r.frame_ids) for r in index]
    manifest = again.path.read_bytes()
    member = registry.create("datasets", {"name": "example", "kind": kind, "options": options})
    images = {p: p.stat().st_mtime_ns for p in again.root.rglob("*.png")}
    member.prepare(tmp_path / "scenes", threads=1)
    assert {p: p.stat().st_mtime_ns for p in again.root.rglob("*.png")} == images
    scenes = sorted(again.records)
    lost, damaged = ((again.root / s, again.records[s].frame_ids[0]) for s in (scenes[0], scenes[-1]))
    (lost[0] / f"{lost[1]}.png").unlink()
    (damaged[0] / f"{damaged[1]}.jpg").write_bytes(b"damaged")
    (again.root / "of_another_set").mkdir()
    member.prepare(tmp_path / "scenes", threads=2)
    made = {p.parent.name for p, before in images.items() if p.stat().st_mtime_ns != before}
    assert made == {scenes[0], scenes[-1]}, "what is missing or damaged is made again, and nothing else"
    assert again.path.read_bytes() == manifest
    assert not (again.root / "of_another_set").exists()
