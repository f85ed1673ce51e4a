"""Every teacher kind, found by scanning the folder, keeps the contract of pipeline/teachers/base.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from box_rooms import make_scene, write_dataset

from pipeline.core import registry
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.conventions import is_name
from pipeline.scenes.types import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures

KINDS = sorted(registry.member_files("teachers"))
SIZE = (96, 128)


def example(kind: str) -> Teacher:
    cls = registry.member_class("teachers", kind)
    return registry.create("teachers", {"name": kind, "kind": kind, "options": dict(cls.example)})


ENCODING = [kind for kind in KINDS if example(kind).has_features and not example(kind).is_view]


class Loaded(dict[str, Teacher]):
    """Encoding teachers with their weights, each loaded when a test first asks for it; those trained here after a few steps."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
        self.index = write_dataset(folder / "scenes", [make_scene(f"train{i}", views=2, size=SIZE) for i in range(3)])

    def __missing__(self, kind: str) -> Teacher:
        teacher, weights = example(kind), None
        if teacher.trained_in_workflow:
            weights = self.folder / kind
            weights.mkdir()
            figures = teacher.pretrain(self.index, weights, device="cpu")
            assert all(np.isfinite(value) for value in figures.values())
            assert list(weights.glob("*.safetensors"))
        assert isinstance(teacher.load(weights, "cpu"), str)
        self[kind] = teacher
        return teacher


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(tmp_path_factory.mktemp("teachers"))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene("conformance", views=4, size=SIZE)


def chosen(scene: Scene, order: list[int]) -> Scene:
    """Some of the views, in some order."""
    record = dataclasses.replace(
        scene.record,
        frame_ids=tuple(scene.record.frame_ids[i] for i in order),
        world_from_camera=scene.record.world_from_camera[order],
    )
    return Scene(record, scene.rgb[order], scene.depth_m[order])


def test_the_built_in_kinds_are_found() -> None:
    assert {"none", "geometry", "vggt", "shuffled", "random"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_description(kind: str) -> None:
    teacher = example(kind)
    assert is_name(kind)
    if teacher.weight_files():
        assert type(teacher).licences is not Teacher.licences, "say under which licence the weights may be used"
    assert isinstance(teacher.feature_layer(), str)
    assert all(field.description for field in type(teacher).options_model.model_fields.values())
    assert teacher.has_features or not (teacher.is_view or teacher.trained_in_workflow)
    assert teacher.is_view == (teacher.source() is not None)
    assert teacher.trained_in_workflow == (teacher.pretrain_dataset() is not None)


@pytest.mark.parametrize("kind", ENCODING)
def test_features_have_the_promised_shape(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    teacher = loaded[kind]
    found, grid = teacher.encode(scene), teacher.grid(*SIZE)
    assert isinstance(found, TeacherFeatures)
    assert found.grid == grid
    assert found.tokens.dtype == np.float32
    # rows * cols tokens and not one more: a special token that slipped through would show here.
    assert found.tokens.shape == (4, grid.rows, grid.cols, teacher.dim)
    assert np.isfinite(found.tokens).all()
    if found.confidence is not None:
        assert found.confidence.shape == found.tokens.shape[:3]
        assert found.confidence.dtype == np.float32
        assert 0 <= found.confidence.min() <= found.confidence.max() <= 1


@pytest.mark.parametrize("size", [(128, 96), (101, 133), (300, 50)])
@pytest.mark.parametrize("kind", ENCODING)
def test_portraits_and_odd_sizes_have_the_promised_grid(kind: str, size: tuple[int, int], loaded: dict[str, Teacher]) -> None:
    found, grid = loaded[kind].encode(make_scene("odd", views=2, size=size)), loaded[kind].grid(*size)
    assert found.grid == grid
    assert found.tokens.shape[:3] == (2, grid.rows, grid.cols)
    assert np.isfinite(found.tokens).all()


@pytest.mark.parametrize("kind", ENCODING)
def test_features_tell_places_apart(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    found = loaded[kind].encode(scene)
    seen = found.tokens if found.confidence is None else found.tokens[found.confidence > 0]
    assert seen.reshape(-1, found.tokens.shape[-1]).std(0).mean() > 1e-3


@pytest.mark.parametrize("kind", ENCODING)
def test_the_grid_covers_a_window_of_the_image(kind: str) -> None:
    for size in (SIZE, (480, 640), (968, 1296), (640, 480)):
        x0, y0, x1, y1 = example(kind).grid(*size).window
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        # At least the shorter side squared is seen: nothing but a centre crop may be lost.
        assert (x1 - x0) * size[1] * (y1 - y0) * size[0] >= 0.95 * min(size) ** 2


@pytest.mark.parametrize("kind", ENCODING)
def test_rows_and_columns_are_where_the_grid_says(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    """Changing one corner of the picture changes the features of that corner most."""
    plain = loaded[kind].encode(scene).tokens
    rgb, depth = scene.rgb.copy(), scene.depth_m.copy()
    rgb[0, -24:, -32:] = 255 - rgb[0, -24:, -32:]
    depth[0, -24:, -32:] *= 0.5
    change = np.linalg.norm(loaded[kind].encode(Scene(scene.record, rgb, depth)).tokens - plain, axis=-1)[0]
    rows, cols = change.shape
    corner = change[-max(1, rows // 4) :, -max(1, cols // 4) :]
    assert corner.mean() > 2 * change[: rows // 2, : cols // 2].mean()


@pytest.mark.parametrize("kind", ENCODING)
def test_encoding_is_deterministic(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    loaded[kind].encode(make_scene("another", views=2, size=SIZE))
    np.testing.assert_array_equal(loaded[kind].encode(scene).tokens, loaded[kind].encode(scene).tokens)


@pytest.mark.parametrize("kind", ENCODING)
def test_scenes_in_flight_do_not_disturb_each_other(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    """As the extraction engine does it: a scene is prepared and begun, then others, and only then its features are taken."""
    teacher = loaded[kind]
    waiting = [teacher.start(teacher.prepare(each)) for each in (scene, make_scene("another", views=2, size=SIZE), scene)]
    found, other, again = (ready() for ready in waiting)
    expected = teacher.encode(scene)
    assert len(other.tokens) == 2
    for name in ("tokens", "confidence", "depth", "pose"):
        for features in (found, again):
            np.testing.assert_array_equal(getattr(features, name), getattr(expected, name))


@pytest.mark.parametrize("kind", ENCODING)
def test_order_dependence_is_as_declared(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    teacher, order = loaded[kind], [2, 0, 3, 1]
    plain, other = teacher.encode(scene).tokens[order], teacher.encode(chosen(scene, order)).tokens
    same = np.allclose(plain, other, atol=1e-4 * np.abs(plain).max())
    assert same != teacher.order_dependent


@pytest.mark.parametrize("kind", ENCODING)
def test_set_dependence_is_as_declared(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    """The same views beside fewer others: the extraction engine splits scenes of teachers that say it changes nothing."""
    teacher = loaded[kind]
    plain, fewer = teacher.encode(scene), teacher.encode(chosen(scene, [0, 1]))
    same = np.allclose(plain.tokens[:2], fewer.tokens, atol=1e-4 * np.abs(plain.tokens).max())
    assert same != teacher.set_dependent
    assert teacher.set_dependent or not teacher.order_dependent
    if not teacher.set_dependent:
        assert plain.pose is None, "poses relate views to each other"
        for name in ("confidence", "depth"):
            whole, part = getattr(plain, name), getattr(fewer, name)
            assert (whole is None) == (part is None)
            if whole is not None:
                np.testing.assert_allclose(part, whole[:2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in ENCODING if not example(kind).reads_depth])
def test_a_teacher_that_does_not_ask_for_depth_never_looks_at_it(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    none = np.broadcast_to(np.float32(0), scene.depth_m.shape)
    plain, without = loaded[kind].encode(scene), loaded[kind].encode(Scene(scene.record, scene.rgb, none))
    np.testing.assert_array_equal(plain.tokens, without.tokens)


def test_only_the_oracle_of_the_built_in_teachers_asks_for_depth() -> None:
    own = [k for k in ENCODING if registry.member_path("teachers", k).is_relative_to(registry.PACKAGE)]
    assert [kind for kind in own if example(kind).reads_depth] == ["geometry"]


@pytest.mark.parametrize("kind", ENCODING)
def test_predictions_are_depths_shares_and_rigid_poses(kind: str, loaded: dict[str, Teacher], scene: Scene) -> None:
    found = loaded[kind].encode(scene)
    if found.depth is not None:
        assert found.depth.shape == found.tokens.shape[:3]
        assert found.depth.dtype == np.float32
        assert found.depth.min() > 0
    if found.pose is not None:
        assert (found.pose.shape, found.pose.dtype) == ((len(found.tokens), 4, 4), np.float32)
        turn = found.pose[:, :3, :3]
        np.testing.assert_array_equal(found.pose[0], np.eye(4))
        np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-4)
        np.testing.assert_array_equal(found.pose[:, 3], np.broadcast_to([0, 0, 0, 1], (len(turn), 4)))


@pytest.mark.parametrize("kind", ENCODING)
def test_features_survive_the_store(kind: str, loaded: dict[str, Teacher], scene: Scene, tmp_path: Path) -> None:
    teacher, found = loaded[kind], loaded[kind].encode(scene)
    grid = found.grid
    spec = StoreSpec("boxes", kind, kind, teacher.dim, grid.rows, grid.cols, grid.window)
    with FeatureWriter(tmp_path, spec) as writer:
        writer.write(scene.scene_id, scene.record.frame_ids, found)
        writer.finish()
    stored = FeatureReader([tmp_path / "manifest.json"]).read(scene.scene_id, scene.record.frame_ids).tokens
    a, b = found.tokens.reshape(-1, teacher.dim), stored.reshape(-1, teacher.dim)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1)[norms > 0] / norms[norms > 0]
    assert cosine.min() > 1 - 1e-4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if example(kind).is_view])
def test_a_derived_teacher_maps_every_scene_to_another(kind: str) -> None:
    ids = [f"scene{i}" for i in range(9)]
    mapping = example(kind).scene_map(ids)
    assert sorted(mapping) == sorted(ids)
    assert set(mapping.values()) <= set(ids)
    assert mapping == example(kind).scene_map(ids)
