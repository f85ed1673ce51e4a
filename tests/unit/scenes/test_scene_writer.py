"""The one writer of scenes: what is read back, what is refused, when a finished scene is kept."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_rooms import make_scene
from PIL import Image

from pipeline.core.errors import PipelineError
from pipeline.scenes.index import load_scene
from pipeline.scenes.types import SceneObject, SceneRecord
from pipeline.scenes.writer import MARKER, ScenePlace, SceneWriter, depth_png, jpeg_bytes, remove_others

SCENE = make_scene("desk", views=3, size=(48, 64))
DEPTH_MM = np.round(1000 * SCENE.depth_m).astype(np.uint16)
CHAIR = SceneObject(0, "chair", (0, 0, 0.5, 1, 1, 1))
VALID = {
    "scene_id": "desk",
    "split": "train",
    "frame_ids": SCENE.record.frame_ids,
    "poses": SCENE.record.world_from_camera,
    "camera": SCENE.record.intrinsics,
    "rgb": list(SCENE.rgb),
    "depth_mm": list(DEPTH_MM),
    "objects": [CHAIR],
    "proposals": np.array([CHAIR.box]),
}


def write(root: Path, **change: Any) -> SceneRecord:
    """Write the scene, its views last to first."""
    given = VALID | change
    place = ScenePlace(root / given["scene_id"], given["split"], "spec")
    writer = SceneWriter(place, given["frame_ids"], given["poses"], given["camera"], source="the source")
    for view in reversed(range(len(given["rgb"]))):
        writer.frame(view, given["rgb"][view], given["depth_mm"][view])
    return writer.finish(given["objects"], given["proposals"], {"frames": 3})


def test_a_scene_is_read_back(tmp_path: Path) -> None:
    jpeg = jpeg_bytes(SCENE.rgb[1])
    record = write(tmp_path, rgb=[SCENE.rgb[0], jpeg, SCENE.rgb[2]])
    found = load_scene(tmp_path, record)
    np.testing.assert_array_equal(found.depth_m, DEPTH_MM.astype(np.float32) / np.float32(1000))
    assert np.abs(found.rgb.astype(int) - SCENE.rgb).mean() < 4
    assert (tmp_path / "desk" / f"{record.frame_ids[1]}.jpg").read_bytes() == jpeg
    assert (record.frame_ids, record.objects, record.depth is None) == (SCENE.record.frame_ids, (CHAIR,), False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scene_id": "-desk"}, "scene id '-desk' is not a valid id"),
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"frame_ids": ("0", "../1", "2")}, "frame id '../1' is not a valid id"),
        ({"frame_ids": ("0", "1", "1")}, "3 views with 2 different frame ids"),
        ({"poses": np.where(np.arange(3)[:, None, None] == 1, -np.inf, VALID["poses"])}, "not finite"),
        ({"poses": VALID["poses"][:2]}, r"poses of shape \(2, 4, 4\)"),
        ({"camera": np.eye(4)}, "intrinsics"),
        ({"rgb": [*SCENE.rgb[:2], SCENE.rgb[2, :40]]}, r"are \(\(40, 64\), \(48, 64\)\) pixels"),
        ({"rgb": [*SCENE.rgb[:2], SCENE.rgb[2, ..., 0]]}, r"a colour image of shape \(48, 64\)"),
        ({"rgb": [*SCENE.rgb[:2], b"no picture"]}, r"(?s)not an image.*the source, frame 00020"),
        ({"rgb": VALID["rgb"][:2]}, "a view has no images"),
        ({"depth_mm": list(SCENE.depth_m)}, "a depth image of shape .* and type float32"),
        ({"depth_mm": list(DEPTH_MM // 100)}, "cannot be that of a room"),
        ({"objects": [CHAIR, CHAIR]}, "an object id comes twice"),
        ({"objects": [replace(CHAIR, box=(0, 0, np.nan, 1, 1, 1))]}, "six finite numbers"),
        ({"proposals": np.zeros((2, 5))}, "six finite numbers"),
    ],
)
def test_what_is_no_scene_is_refused_and_not_finished(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=message) as caught:
        write(tmp_path, **change)
    assert "the source" in str(caught.value.where)
    assert ScenePlace(tmp_path / "desk", "train", "spec").finished() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "00010.png").unlink(),
        lambda folder: (folder / "00010.txt").write_text("1 0 0 0\n"),
        lambda folder: (folder / MARKER).write_text((folder / MARKER).read_text().replace('"chair"', '"table"')),
        lambda folder: (folder / MARKER).write_text("{"),
        lambda folder: (folder / MARKER).unlink(),
    ],
)
def test_a_finished_scene_is_kept_while_it_is_whole(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    record = write(tmp_path)
    place = ScenePlace(tmp_path / "desk", "train", "spec")
    found = place.finished()
    assert found is not None
    assert (found[0].checksum, found[0].objects, found[1]) == (record.checksum, record.objects, {"frames": 3})
    assert replace(place, spec="other").finished() is None
    assert replace(place, split="val").finished() is None
    damage(place.folder)
    assert place.finished() is None


def test_other_scenes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("desk", "old", ".houses"):
        (tmp_path / name).mkdir()
    (tmp_path / "report.json").write_text("{}")
    remove_others(tmp_path, {"desk"})
    assert {path.name for path in tmp_path.iterdir()} == {"desk", ".houses", "report.json"}


def test_every_depth_comes_back_whoever_reads_it() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for depth in (every, every.T, every[::3, 1::2], every[:1, :1], every[:5, :1], every.astype(">u2")):
        with Image.open(io.BytesIO(depth_png(depth))) as image:
            assert image.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(image), depth)
    ramp = np.linspace(500, 4000, 640).astype(np.uint16)[None].repeat(480, 0)
    assert len(depth_png(ramp)) < ramp.nbytes / 5
