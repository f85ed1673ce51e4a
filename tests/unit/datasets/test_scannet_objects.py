"""Meshes, segments, labels and proposals: boxes against plain loops over vertices, faults against their messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scannet_files as made
from scipy import sparse

from pipeline.benchmarks.scanrefer import OFFICIAL_CLASSES
from pipeline.core.errors import DataError
from pipeline.datasets.scannet.instances import aligned, read_alignment, read_instances
from pipeline.datasets.scannet.labels import CLASSES_18, Labels, read_labels
from pipeline.datasets.scannet.mesh import read_vertices
from pipeline.datasets.scannet.proposals import BoxFile, mask_boxes

SCAN = "scene0011_00"
LABELS = Labels({"chair": (5, "chair"), "floor": (2, "floor")})


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """The files of one scan."""
    made.write_scan(tmp_path, SCAN)
    return tmp_path / "scans" / SCAN


def edited(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def objects(scan: Path) -> dict[int, Any]:
    matrix = read_alignment(scan / f"{SCAN}.txt")
    assert matrix is not None
    vertices = aligned(read_vertices(scan / f"{SCAN}_vh_clean_2.ply"), matrix)
    return {o.object_id: o for o in read_instances(scan, SCAN, vertices, LABELS).objects}


def test_boxes_are_those_of_the_aligned_vertices(scan: Path) -> None:
    vertices, segments, groups = made.mesh(SCAN)
    found = objects(scan)
    assert sorted(found) == list(found)
    for group in groups:
        mine = [v for v, s in zip(vertices, segments, strict=True) if s in group["segments"]]
        low, high = np.min(mine, axis=0), np.max(mine, axis=0)
        np.testing.assert_allclose(found[group["objectId"]].box, [*(low + high) / 2, *(high - low)], atol=2e-5)
    for thing in made.room(SCAN)[1].things:
        np.testing.assert_allclose(found[thing.object_id].box, thing.box(), atol=2e-4)


def test_objects_that_share_segments_each_keep_their_box(scan: Path) -> None:
    path = scan / f"{SCAN}.aggregation.json"
    before = objects(scan)

    def repeat(content: Any) -> None:
        first = content["segGroups"][0]
        content["segGroups"] += [{**first, "id": 77, "objectId": 77}, first]

    edited(path, repeat)
    after = objects(scan)
    assert after[77].box == after[0].box == before[0].box
    assert len(after) == len(before) + 1


def test_no_alignment_where_the_line_is_absent(scan: Path) -> None:
    path = scan / f"{SCAN}.txt"
    np.testing.assert_allclose(read_alignment(path), made.alignment(SCAN), atol=1e-6)
    path.write_text("colorHeight = 968\n")
    assert read_alignment(path) is None


@pytest.mark.parametrize(
    "value", ["1 2 3", "a " * 16, "1 " * 16, "nan " * 16, "2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1", "1 0 0 0 0 1 0 0 0 0 -1 0 0 0 0 1"]
)
def test_an_alignment_that_is_no_motion_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "s.txt").write_text(f"axisAlignment = {value}\n")
    with pytest.raises(DataError, match="axisAlignment") as error:
        read_alignment(tmp_path / "s.txt")
    assert "s.txt" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["segGroups"][1]["segments"].append(123_456), "names 1 segments that the scan does not have: 123456"),
        (lambda c: c["segGroups"][1].update(segments=[]), "no segments"),
        (lambda c: c["segGroups"][1].update(segments=["3"]), "not whole numbers"),
        (lambda c: c["segGroups"][1].update(objectId=0), "objectId 0 comes twice"),
        (lambda c: c["segGroups"][1].update(objectId=-1), "objectId is -1"),
        (lambda c: c["segGroups"][1].update(objectId=True), "objectId is True"),
        (lambda c: c["segGroups"][1].update(label=" "), "label of object"),
        (lambda c: c["segGroups"].append(3), "not an object"),
        (lambda c: c.update(segGroups=[]), "segGroups"),
        (lambda c: c.update(sceneId="scannet.scene0999_00"), "of scan 'scene0999_00'"),
        (lambda c: [c], "JSON object"),
    ],
)
def test_faults_of_the_aggregation(scan: Path, change: Callable[[Any], Any], message: str) -> None:
    edited(scan / f"{SCAN}.aggregation.json", change)
    with pytest.raises(DataError, match=message) as error:
        objects(scan)
    assert f"{SCAN}.aggregation.json" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["segIndices"].append(7), "segment numbers for a mesh of"),
        (lambda c: c.update(segIndices=["x"] * len(c["segIndices"])), "whole numbers"),
        (lambda c: c.update(segIndices=[1.5] * len(c["segIndices"])), "whole numbers"),
        (lambda c: c.update(segIndices=[[1], [1, 2]]), "whole numbers"),
        (lambda c: c.pop("segIndices") and c, "whole numbers"),
    ],
)
def test_faults_of_the_segments(scan: Path, change: Callable[[Any], Any], message: str) -> None:
    edited(scan / f"{SCAN}_vh_clean_2.0.010000.segs.json", change)
    with pytest.raises(DataError, match=message) as error:
        objects(scan)
    assert "segs.json" in str(error.value)


def test_truncated_text_files_say_so(scan: Path) -> None:
    for name in (f"{SCAN}.aggregation.json", f"{SCAN}_vh_clean_2.0.010000.segs.json"):
        data = (scan / name).read_bytes()
        (scan / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(DataError, match="not valid JSON"):
            objects(scan)
        (scan / name).unlink()
        with pytest.raises(DataError, match="missing"):
            objects(scan)
        (scan / name).write_bytes(data)


def test_vertices_keep_their_order(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    (tmp_path / "m.ply").write_bytes(made.ply_bytes(points))
    np.testing.assert_array_equal(read_vertices(tmp_path / "m.ply"), points.astype(np.float64))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PLY file"),
        (b"OFF\n", "not a PLY file"),
        (made.ply_bytes(np.zeros((4, 3)), faces=0), "4 vertices and 0 faces"),
        (made.ply_bytes(np.zeros((0, 3)), faces=2), "0 vertices"),
        (made.ply_bytes(np.zeros((4, 3)), text_format="ascii 1.0"), "format ascii"),
        (made.ply_bytes(np.full((4, 3), np.nan)), "not finite"),
        (made.ply_bytes(np.zeros((4, 3))).replace(b"property float z", b"property float w"), "properties"),
        (made.ply_bytes(np.zeros((4, 3))).replace(b"property float z", b"property weird z"), "properties"),
        (made.ply_bytes(np.zeros((4, 3))).replace(b"property float z", b"property"), "properties"),
        (made.ply_bytes(np.zeros((40, 3)))[:-1], "ends early"),
        (made.ply_bytes(np.zeros((40, 3)))[:400], "ends early"),
    ],
)
def test_other_meshes_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "m.ply").write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        read_vertices(tmp_path / "m.ply")
    assert "m.ply" in str(error.value)


def test_labels_give_nyu40_and_18_classes(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    rows = ["1\toffice chair\tx\t5\tchair", "2\twall\tx\t1\twall", '3\ta "quoted" one\tx\t40\totherprop']
    path.write_text("id\traw_category\tcategory\tnyu40id\tnyu40class\n" + "\n".join(rows) + "\n")
    labels = read_labels(path)
    assert labels.attributes("office chair") == {"nyu40id": "5", "nyu40class": "chair", "class18": "chair"}
    assert labels.attributes("wall") == {"nyu40id": "1", "nyu40class": "wall", "class18": "others"}
    assert labels.attributes("hoverboard") == {"nyu40class": "unknown", "class18": "others"}
    assert 'a "quoted" one' in labels
    assert "hoverboard" not in labels


def test_the_18_classes_are_those_of_the_benchmark() -> None:
    assert {*OFFICIAL_CLASSES, "others"} == set(CLASSES_18)
    assert len(CLASSES_18) == 18


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns"),
        ("a,b,c\n1,2,3\n", "columns"),
        ("raw_category\tnyu40id\tnyu40class\n", "no rows"),
        ("raw_category\tnyu40id\tnyu40class\nchair\tfive\tchair\n", "line 2"),
        ("raw_category\tnyu40id\tnyu40class\nchair\n", "line 2"),
        ("raw_category\tnyu40id\tnyu40class\nchair\t²\tchair\n", "line 2"),
        ("raw_category\tnyu40id\tnyu40class\nchair\t5\tcha\rir\n", "no table"),
        ("raw_category\tnyu40id\tnyu40class\nchair\t5\t" + "x" * 200_000, "no table"),
    ],
)
def test_other_label_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.tsv").write_bytes(text.encode())
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "labels.tsv")


def test_mask_boxes_equal_a_loop_and_empty_masks_are_counted(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    vertices = random.normal(size=(40, 3))
    masks = random.random((6, 40)) < 0.2
    masks[[1, 4]] = False
    for write in (sparse.csr_matrix, sparse.coo_matrix, sparse.csc_matrix):
        sparse.save_npz(tmp_path / "m.npz", write(masks.astype(np.int64)))
        boxes, empty = mask_boxes(tmp_path / "m.npz", vertices, 5)
        wanted = [vertices[mask] for mask in masks[:5] if mask.any()]
        assert empty == 2
        np.testing.assert_allclose(boxes[:, :3], [(p.min(0) + p.max(0)) / 2 for p in wanted], atol=1e-6)
        np.testing.assert_allclose(boxes[:, 3:], [np.ptp(p, axis=0) for p in wanted], atol=1e-6)


def test_only_ones_count_as_members(tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "m.npz", sparse.csr_matrix(np.array([[1.0, 0.5, 1.0], [0.5, 0, 0]])))
    boxes, empty = mask_boxes(tmp_path / "m.npz", np.arange(9.0).reshape(3, 3), 50)
    assert empty == 1
    np.testing.assert_allclose(boxes, [[3, 4, 5, 6, 6, 6]])


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with pytest.raises(DataError, match="missing"):
        mask_boxes(path, np.zeros((3, 3)), 50)
    sparse.save_npz(path, sparse.csr_matrix(np.ones((2, 4))))
    with pytest.raises(DataError, match="masks over 4 vertices for a mesh of 3"):
        mask_boxes(path, np.zeros((3, 3)), 50)
    whole = path.read_bytes()
    for data in (b"", b"PK", whole[: len(whole) // 2], whole[:-10]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="cannot be read"):
            mask_boxes(path, np.zeros((4, 3)), 50)
    good = {"format": b"csr", "shape": (2, 4), "data": np.ones(2), "indptr": [0, 1, 2]}
    for indices in ([0, 4], [0, -1]):  # scipy looks at neither; -1 would be the last vertex
        np.savez(path, **good, indices=np.array(indices))
        with pytest.raises(DataError, match="contradict themselves"):
            mask_boxes(path, np.zeros((4, 3)), 50)
    np.savez(path, **(good | {"format": b"odd"}), indices=[0, 1])
    with pytest.raises(DataError, match="cannot be read"):
        mask_boxes(path, np.zeros((4, 3)), 50)
    np.savez(path, a=np.ones(3))
    with pytest.raises(DataError, match="cannot be read"):
        mask_boxes(path, np.zeros((4, 3)), 50)


def test_a_box_file_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    rows = {
        "scannet/a": [[0, 1, 2, 0.5, 0.5, 0]],
        "scannet/none": [],
        "scannet/b": [[0, 1, 2, -1, 1, 1]],
        "scannet/c": [[0] * 5],
    }
    path.write_text(
        json.dumps({**rows, "scannet/d": [[0, 1, 2, 1, 1, float("nan")]], "scannet/e": "x", "scannet/f": [[True] * 6]})[:-1]
        + ', "scannet/h": [[1'
        + "0" * 400
        + ", 0, 0, 1, 1, 1]]}"
    )
    file = BoxFile(path)
    np.testing.assert_array_equal(file.boxes("a"), [[0, 1, 2, 0.5, 0.5, 0]])
    assert file.boxes("none").shape == (0, 6)
    cases = [
        ("h", "six"),
        ("b", "negative"),
        ("c", "six"),
        ("d", "six"),
        ("e", "list"),
        ("f", "six"),
        ("g", "no entry 'scannet/g'"),
    ]
    for scan, message in cases:
        with pytest.raises(DataError, match=message):
            file.boxes(scan)
    for text in ("{", '{"scannet/a": 1' + "0" * 5000 + "}", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(DataError, match="not valid JSON"):
            BoxFile(path)
