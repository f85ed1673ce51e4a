"""ScanNet's real label table and split lists, SQA3D's real test files, and real sensor frames through the .sens reader."""

from __future__ import annotations

import csv
import lzma
import os
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scannet_files as made
from PIL import Image

from pipeline.datasets.scannet.labels import CLASSES_18, read_labels
from pipeline.datasets.scannet.release import annotation_names, choose_scans, read_annotations, read_splits
from pipeline.datasets.scannet.sens import SensFile

ROOT = Path(os.environ.get("PIPELINE_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "scannet_meta"
DATA = Path(__file__).parent / "data"
with_lists = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no label table and scan lists in {ROOT}: they are under ScanNet's terms (set PIPELINE_SHARED)"
)
TABLE = ROOT / "scannetv2-labels.combined.tsv"


def splits() -> dict[str, tuple[str, ...]]:
    return read_splits({split: ROOT / f"scannetv2_{split}.txt" for split in ("train", "val", "test")})


@with_lists
def test_the_label_table_is_read_whole() -> None:
    labels = read_labels(TABLE)
    assert len(labels.table) == 607
    assert {number for number, _ in labels.table.values()} == set(range(1, 41))
    assert len({name for _, name in labels.table.values()}) == 40
    assert labels.attributes("office chair") == {"nyu40id": "5", "nyu40class": "chair", "class18": "chair"}
    assert labels.attributes("trash can") == {"nyu40id": "39", "nyu40class": "otherfurniture", "class18": "others"}
    assert labels.attributes("shower curtain")["class18"] == "shower curtain"


@with_lists
def test_18_classes_equal_the_official_rule_on_every_name() -> None:
    """ScanRefer's rule written out: the nyu40class if it is one of the 17, else others."""
    labels = read_labels(TABLE)
    counts: Counter[str] = Counter()
    with TABLE.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            wanted = row["nyu40class"] if row["nyu40class"] in CLASSES_18[:-1] else "others"
            assert labels.attributes(row["raw_category"])["class18"] == wanted
            counts[wanted] += 1
    assert set(counts) == set(CLASSES_18)


@with_lists
def test_the_official_lists() -> None:
    found = splits()
    assert {split: len(scans) for split, scans in found.items()} == {"train": 1201, "val": 312, "test": 100}
    assert choose_scans(found, (), None) == found


@with_lists
def test_the_real_questions_of_sqa3d_are_about_validation_scans(tmp_path: Path) -> None:
    for packed in (DATA / "sqa3d").glob("*.xz"):
        (tmp_path / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
    found = splits()
    names = annotation_names(("sqa3d",), ("val",), "test")
    annotations = read_annotations(tmp_path, names, found)
    assert len(annotations.scans["val"]) == 67
    chosen = choose_scans(found, (), annotations.scans)
    assert {split: len(scans) for split, scans in chosen.items()} == {"train": 0, "val": 67, "test": 0}


def test_real_sensor_frames_survive_a_stream(tmp_path: Path) -> None:
    """Five real Kinect frames, written as a stream and read back: depth equal to the PNG, colour byte by byte."""
    colors = [path.read_bytes() for path in sorted((DATA / "open3d_rgbd" / "color").glob("*.jpg"))]
    depths = [np.asarray(Image.open(path)).astype("<u2") for path in sorted((DATA / "open3d_rgbd" / "depth").glob("*.png"))]
    frames = [(np.eye(4), c, zlib.compress(d.tobytes())) for c, d in zip(colors, depths, strict=True)]
    camera = np.diag([525.0, 525.0, 1, 1])
    data = made.sens_bytes(
        frames, color_intrinsics=camera, depth_intrinsics=camera, color_size=depths[0].shape, depth_size=depths[0].shape
    )
    (tmp_path / "real.sens").write_bytes(data)
    with SensFile(tmp_path / "real.sens") as file:
        for frame, color, depth in zip(file.frames(), colors, depths, strict=True):
            assert file.color(frame) == color
            np.testing.assert_array_equal(file.depth(frame), depth)
