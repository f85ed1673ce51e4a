"""Bad frames and manifests: one clear error each, and exit code 2 at the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from manifest_files import change_manifest
from PIL import Image

from pipeline.core.errors import DataError, FrameError
from pipeline.scenes.index import SceneIndex

ROOT = Path(__file__).parents[3]


@pytest.fixture
def rooms(tiny_rooms, tmp_path):
    """A private copy of the small rooms."""
    shutil.copytree(tiny_rooms.folder, tmp_path / "rooms")
    return SceneIndex(tmp_path / "rooms" / "manifest.json")


def first_frame(index):
    record = next(iter(index))
    return record, index.root / record.scene_id / record.frame_ids[0]


def changed(index, change):
    change_manifest(index.path, lambda content: change(content["scenes"][0]))
    return SceneIndex(index.path)


def test_a_scene_has_the_stated_shapes_and_units(rooms):
    record, _ = first_frame(rooms)
    scene = rooms.load(record.scene_id)
    views = len(record.frame_ids)
    assert scene.rgb.shape == (views, *record.image_size, 3)
    assert scene.rgb.dtype == np.uint8
    assert scene.depth_m.shape == (views, *record.depth_size)
    assert scene.depth_m.dtype == np.float32
    assert 0.3 < np.median(scene.depth_m[scene.depth_m > 0]) < 8


def test_without_depth_no_depth_file_is_decoded_and_no_depth_is_valid(rooms, monkeypatch):
    record, frame = first_frame(rooms)
    whole = rooms.load(record.scene_id)
    monkeypatch.setattr("pipeline.scenes.index.read_depth", None)
    scene = rooms.load(record.scene_id, depth=False)
    np.testing.assert_array_equal(scene.rgb, whole.rgb)
    assert (scene.depth_m.shape, scene.depth_m.dtype) == (whole.depth_m.shape, whole.depth_m.dtype)
    assert not scene.depth_m.any()
    frame.with_suffix(".png").unlink()
    with pytest.raises(FrameError, match="is missing"):
        rooms.load(record.scene_id)


def test_a_missing_frame_is_named(rooms):
    record, frame = first_frame(rooms)
    frame.with_suffix(".jpg").unlink()
    with pytest.raises(FrameError, match=rf"{frame.name}.jpg is missing"):
        rooms.load(record.scene_id)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_frame_is_named(rooms, suffix):
    record, frame = first_frame(rooms)
    path = frame.with_suffix(suffix)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FrameError, match=f"{frame.name}{suffix} cannot be read"):
        rooms.load(record.scene_id)


def test_depth_of_another_size_is_refused(rooms):
    record, frame = first_frame(rooms)
    Image.fromarray(np.ones((7, 9), dtype=np.uint16)).save(frame.with_suffix(".png"))
    with pytest.raises(FrameError, match=r"has shape \(7, 9\)"):
        rooms.load(record.scene_id)


def test_grey_colour_is_refused(rooms):
    record, frame = first_frame(rooms)
    Image.fromarray(np.ones(record.image_size, dtype=np.uint8)).save(frame.with_suffix(".jpg"))
    with pytest.raises(FrameError, match="3 channels"):
        rooms.load(record.scene_id)


def test_a_non_finite_pose_in_the_manifest_is_refused(rooms):
    def spoil(entry):
        entry["world_from_camera"][0][0][3] = "inf"

    with pytest.raises(FrameError, match="non-finite"):
        _ = changed(rooms, spoil).records


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".hidden", "x..y", 3])
def test_ids_never_become_paths_unchecked(rooms, name):
    with pytest.raises(DataError, match="is not a valid id"):
        _ = changed(rooms, lambda entry: entry.update(scene_id=name)).records
    with pytest.raises(DataError, match="is not a valid id"):
        _ = changed(rooms, lambda entry: entry.update(scene_id="ok", frame_ids=[name])).records


def test_a_scene_that_comes_twice_is_refused(rooms):
    change_manifest(rooms.path, lambda content: content["scenes"].append(content["scenes"][0]))
    with pytest.raises(DataError, match="comes twice"):
        _ = SceneIndex(rooms.path).records


@pytest.mark.parametrize("side", ["inf", "nan", "x", None])
def test_a_size_that_is_no_number_is_refused(rooms, side):
    with pytest.raises(DataError, match="scene entry is malformed"):
        _ = changed(rooms, lambda entry: entry.update(image_size=[side, 64])).records


def test_another_schema_is_refused(rooms):
    change_manifest(rooms.path, lambda content: content.update(schema=99))
    with pytest.raises(DataError, match="schema 99"):
        SceneIndex(rooms.path)


def cli(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_a_bad_frame_ends_a_command_with_exit_code_2_and_no_traceback(rooms, tmp_path):
    _, frame = first_frame(rooms)
    frame.with_suffix(".png").unlink()
    spec = {
        "dataset": "tiny_rooms",
        "teacher": {"name": "geometry", "kind": "geometry", "options": {}},
        "shard": 0,
        "shards": 1,
        "splits": ["train"],
        "store": {"dtype": "bfloat16"},
        "code": "0",
    }
    out = tmp_path / "features" / "manifest.json"
    result = cli("extract", "--spec", json.dumps(spec), "--scenes", rooms.path, "--out", out)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert f"{frame.name}.png is missing" in result.stderr
    assert not out.exists()


def test_a_misspelt_config_ends_check_with_exit_code_2(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("datasets: {rooms: {trian: 3}}\n")
    result = cli("check", "config.yaml", bad)
    assert result.returncode == 2
    assert "did you mean 'train'" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_lists_every_command_without_heavy_imports():
    result = cli("--help")
    assert result.returncode == 0
    for command in ("prepare", "extract", "train", "predict", "score", "cell", "summary", "report"):
        assert command in result.stdout
    code = "import sys; from pipeline.__main__ import parser; parser(); print({'torch','pandas','zarr'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert loaded.strip() == "set()"
