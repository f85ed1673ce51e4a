"""Real sensor data (data/open3d_rgbd, from Open3D): reading as Open3D reads, geometry as published.

Figures compared with: the data's own description (frame 0 to 4: 98.7 % overlap, 6.1 mm), and what the reference's averaging did
on the same frames (of cells of 27x27 pixels, that is 14x14 cells, 28 % hold invalid pixels, 27 % change their voxel, by 19 cm
on average and 1.0 m at p95).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from depth_figures import agreement, describe, invalid_depth, shared_cells
from PIL import Image

from pipeline.core import registry
from pipeline.datasets.posed_rgbd.camera_files import read_camera
from pipeline.datasets.posed_rgbd.depth import DepthCode
from pipeline.datasets.posed_rgbd.redwood import read_log
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Scene

ROOT = Path(__file__).parent / "data" / "open3d_rgbd"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    folder = tmp_path_factory.mktemp("open3d")
    options = {"root": str(ROOT), "gravity": "trajectory"}
    registry.create("datasets", {"name": "office", "kind": "posed_rgbd", "options": options}).prepare(folder, threads=1)
    return SceneIndex(folder / "manifest.json")


@pytest.fixture(scope="module")
def scene(index: SceneIndex) -> Scene:
    return index.load("open3d_rgbd")


def test_files_are_read_as_open3d_reads_them() -> None:
    o3d = pytest.importorskip("open3d")
    camera = o3d.io.read_pinhole_camera_intrinsic(str(ROOT / "camera_primesense.json"))
    size, matrix = read_camera(ROOT / "camera_primesense.json")
    assert size == (camera.height, camera.width)
    np.testing.assert_array_equal(matrix, camera.intrinsic_matrix)
    trajectory = o3d.io.read_pinhole_camera_trajectory(str(ROOT / "trajectory.log")).parameters
    ours = read_log(ROOT / "trajectory.log")
    assert list(ours) == list(range(len(trajectory)))
    for i, parameters in enumerate(trajectory):
        np.testing.assert_allclose(ours[i], np.linalg.inv(parameters.extrinsic), atol=1e-9)


@pytest.mark.parametrize(("name", "code"), [("TUM", DepthCode(5000)), ("SUN", DepthCode(1000, code="rotated"))])
def test_depth_codes_equal_open3d(name: str, code: DepthCode) -> None:
    o3d = pytest.importorskip("open3d")
    path = ROOT / "other_formats" / f"{name}_depth.png"
    create = getattr(o3d.geometry.RGBDImage, f"create_from_{name.lower()}_format")
    stored = np.asarray(Image.open(path))
    black = o3d.geometry.Image(np.zeros((*stored.shape, 3), dtype=np.uint8))
    expected = np.asarray(create(black, o3d.io.read_image(str(path)), convert_rgb_to_intensity=False).depth)
    ours = code.read_mm(path, expected.shape)
    beyond = expected == 0  # Open3D drops what is farther than its limit (4 m for TUM, 7 m for SUN)
    assert (ours[stored == 0] == 0).all()
    assert (~beyond).mean() > 0.5
    np.testing.assert_allclose(ours[~beyond] / 1000, expected[~beyond], atol=0.0005 + 1e-6)
    assert (ours[beyond & (ours > 0)] >= 4000).all()


def test_converted_scene(index: SceneIndex, scene: Scene) -> None:
    record = scene.record
    assert record.frame_ids == ("00000", "00001", "00002", "00003", "00004")
    for frame, depth in zip(record.frame_ids, scene.depth_m, strict=True):
        source = np.asarray(Image.open(ROOT / "depth" / f"{frame}.png"))
        np.testing.assert_array_equal(np.rint(depth * 1000).astype(np.uint16), source)
        assert (index.root / record.scene_id / f"{frame}.jpg").read_bytes() == (ROOT / "color" / f"{frame}.jpg").read_bytes()
    assert 0.12 < (scene.depth_m == 0).mean() < 0.14


def test_cameras_look_about_level_once_z_is_up(scene: Scene) -> None:
    """The scan is of an office, y up in its own files; cameras are at eye level or below and pitch by a few degrees."""
    poses = scene.record.world_from_camera
    assert (np.abs(np.degrees(np.arcsin(poses[:, 2, 2]))) < 10).all(), "pitch"
    assert (poses[:, 2, 1] < -0.98).all(), "the camera's y axis points down"
    assert ((poses[:, 2, 3] > 0.3) & (poses[:, 2, 3] < 2.0)).all(), "height above the lowest thing seen"


def test_reprojection_figures_of_the_description(scene: Scene) -> None:
    """98.7 % and 6.1 mm are of every fourth pixel, rounded down; the nearest pixel is the right one and gives 5.3 mm."""
    record, step = scene.record, 4
    depth = scene.depth_m[0, ::step, ::step].astype(np.float64)
    v, u = np.nonzero(depth)
    camera = record.depth_intrinsics
    local = np.stack([(u * step - camera[0, 2]) / camera[0, 0], (v * step - camera[1, 2]) / camera[1, 1], np.ones(len(u))])
    world = record.world_from_camera[0] @ np.vstack([local * depth[v, u], np.ones(len(u))])
    seen = (np.linalg.inv(record.world_from_camera[4]) @ world)[:3]
    column, row, _ = np.floor(camera @ seen / seen[2]).astype(int)
    inside = (column >= 0) & (column < 640) & (row >= 0) & (row < 480)
    there = scene.depth_m[4][row[inside], column[inside]]
    difference = np.abs(there - seen[2, inside])[there > 0]
    assert inside.mean() == pytest.approx(0.987, abs=0.0005)
    assert np.median(difference) == pytest.approx(0.0061, abs=0.00005)
    figures = agreement(scene, [(0, 4)])
    assert figures.overlap == pytest.approx(0.985, abs=0.002)
    assert figures.median_m < 0.0055
    assert figures.agree > 0.97


def test_unmasked_means_move_what_the_reference_moved(scene: Scene) -> None:
    figures = invalid_depth(scene, 14, as_reference=True)
    assert figures.cells == 5 * 14 * 14
    assert figures.holding == pytest.approx(0.28, abs=0.005)
    assert figures.moved == pytest.approx(0.27, abs=0.005)
    assert figures.shift_mean_m == pytest.approx(0.19, abs=0.005)
    assert figures.shift_p95_m == pytest.approx(1.0, abs=0.05)


def test_figures_at_full_resolution(scene: Scene) -> None:
    """What docs/geometry.md shows."""
    small, large = invalid_depth(scene, 27), invalid_depth(scene, 14)
    assert (round(small.holding, 3), round(small.moved, 3)) == (0.194, 0.191)
    assert (round(large.holding, 3), round(large.moved, 3)) == (0.273, 0.272)
    assert small.empty > large.empty > 0
    assert shared_cells(scene, 14) > 0.75


def test_every_pair_of_views_agrees(index: SceneIndex, scene: Scene) -> None:
    for pair in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 4)):
        figures = agreement(scene, [pair])
        assert figures.overlap > 0.97
        assert figures.median_m < 0.007, "Kinect noise at 2 m is a few millimetres"
        assert figures.agree > 0.96
    assert "difference of depth median" in describe(index.path, sides=(14,))


def test_depth_of_a_kinect_is_accepted_without_doubt(index: SceneIndex) -> None:
    assert index.notes == ()
    depth = index.records["open3d_rgbd"].depth
    assert depth.valid == pytest.approx(0.873, abs=0.001)
    assert depth.agree > 0.97
    assert depth.through < 0.02
