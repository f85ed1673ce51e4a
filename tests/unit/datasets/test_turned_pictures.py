"""EXIF orientation over upright depth: refused with the cause, or read as an option says; never turned in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import posed_rgbd_files as files
import pytest
import scannet_files as made
from box_rooms import make_scene, write_dataset
from PIL import Image

from pipeline.core import registry
from pipeline.core.errors import DataError, FrameError
from pipeline.scenes.index import SceneIndex

SCENE = make_scene("desk")
ORIENTATION, QUARTER = 0x0112, 6
"""Value 6: viewers turn the stored picture by 90 degrees clockwise."""


def mark(path: Path, *, turn: bool, orientation: int = QUARTER) -> None:
    """Write the tag; ``turn``: and store the pixels so that viewers show them upright, as phones do."""
    with Image.open(path) as image:
        pixels = np.asarray(image)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.rot90(pixels).copy() if turn else pixels
    options = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(stored).save(path, exif=exif, **options)


def phone(folder: Path, layout: str, *, turn: bool) -> Path:
    """A scan whose pictures have the tag; depth and cameras are those of the scene."""
    getattr(files, f"write_{layout}")(folder, SCENE)
    for path in folder.glob("**/*.color.png" if layout == "seven_scenes" else "**/*.jpg"):
        mark(path, turn=turn)
    return folder


def prepare(root: Path, out: Path, **options: Any) -> SceneIndex:
    member = {"name": "mine", "kind": "posed_rgbd", "options": {"root": str(root), **options}}
    registry.create("datasets", member).prepare(out, threads=2)
    return SceneIndex(out / "manifest.json")


@pytest.mark.parametrize("layout", ["redwood", "scannet", "seven_scenes"])
@pytest.mark.parametrize(("turn", "exif"), [(True, "turn"), (False, "ignore")])
def test_exif_rotated_is_refused_or_read_as_told(layout: str, turn: bool, exif: str, tmp_path: Path) -> None:
    root = phone(tmp_path / "in" / "phone", layout, turn=turn)
    options = {"intrinsics": files.pinhole(SCENE)} if layout == "seven_scenes" else {}
    with pytest.raises(FrameError, match=r"(?s)EXIF orientation is 6.*phone.*exif_orientation: turn .* ignore"):
        prepare(root, tmp_path, **options)
    index = prepare(root, tmp_path, exif_orientation=exif, **options)
    scene = index.load("phone")
    assert scene.record.image_size == SCENE.record.image_size
    assert np.abs(scene.rgb.astype(int) - SCENE.rgb).mean() < 4
    np.testing.assert_allclose(scene.record.intrinsics, SCENE.record.intrinsics)
    np.testing.assert_allclose(scene.depth_m, SCENE.depth_m, atol=0.00051)
    for path in (index.root / "phone").glob("*.jpg"):
        with Image.open(path) as image:
            assert ORIENTATION not in image.getexif()


@pytest.mark.parametrize(("turn", "exif"), [(True, "ignore"), (False, "turn")])
def test_a_choice_that_lays_the_picture_across_the_depth_is_refused(turn: bool, exif: str, tmp_path: Path) -> None:
    root = phone(tmp_path / "in" / "phone", "redwood", turn=turn)
    (root / "camera.json").unlink()
    with pytest.raises(DataError, match=r"(?s)pictures are 96x128.*depth images 128x96.*depth_intrinsics"):
        prepare(root, tmp_path, exif_orientation=exif, intrinsics=[115.2, 115.2, 47.5, 63.5])


def test_exif_rotated_exports_of_scannet_are_refused(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    val = next(scan for scan, split in made.SCANS.items() if split == "val")
    mark(made.export(root, val) / "00002.jpg", turn=False, orientation=3)
    with pytest.raises(FrameError, match=rf"(?s)scan {val}: the picture's EXIF orientation is 3.*frame 00002.*upright"):
        made.prepare(options | {"only": [val]}, tmp_path / "a")


def test_turned_pictures_of_a_plug_in_and_turned_depth_are_refused(tmp_path: Path) -> None:
    index = write_dataset(tmp_path, [SCENE])
    mark(index.root / "desk" / "00010.jpg", turn=False)
    with pytest.raises(FrameError, match=r"(?s)EXIF orientation is 6.*00010.jpg"):
        index.load("desk")
    files.write_redwood(tmp_path / "in" / "s", SCENE)
    mark(tmp_path / "in" / "s" / "depth" / "00001.png", turn=False)
    with pytest.raises(FrameError, match=r"(?s)EXIF orientation is 6.*depth/00001.png"):
        prepare(tmp_path / "in", tmp_path / "out")
