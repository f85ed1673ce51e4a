"""VSI-Bench questions about rooms of 3D-FRONT: in the official form, and true of furniture that stands askew."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import front3d_files as source
import numpy as np
import pytest
from front3d_files import bedroom, one_house, prepare
from scipy.spatial import cKDTree

from pipeline.core import registry
from pipeline.metrics.spatial import NUMERIC_TYPES, QUESTION_TYPES
from pipeline.metrics.stats import Bootstrap
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import ModelOutput

CORNERS = [(-3.0, -2.5), (3.0, -2.5), (3.0, 1.0), (0.5, 1.0), (0.5, 2.5), (-3.0, 2.5)]
THINGS = (
    ("bed-1", -1.5, 0.0, -1.2, 0.0), ("desk-1", 2.0, 0.0, -1.7, 35.0), ("chair-1", 1.2, 0.0, -0.7, 20.0),
    ("sofa-1", -2.0, 0.0, 1.4, 130.0), ("stool-1", 0.2, 0.0, 0.2, 45.0), ("lamp-2", 1.0, 2.4, 0.0, 0.0),
    ("robe-1", 2.4, 0.0, 0.3, -70.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    """One L-shaped room with furniture at all angles, in the split train."""
    folder = tmp_path_factory.mktemp("spatial")
    one_house(folder, bedroom(corners=CORNERS, things=THINGS))
    return prepare(folder, val_share=0.0, test_share=0.0, views=8, vsibench_per_room=40)


def facts(index: SceneIndex) -> dict[str, dict[str, Any]]:
    return {r.scene_id: json.loads((index.root / r.scene_id / "scene.json").read_text())["facts"] for r in index}


@pytest.fixture(scope="module")
def asked(index: SceneIndex) -> list[dict[str, Any]]:
    return json.loads((index.folder / "annotations" / "vsibench_train.json").read_text())


def of(asked: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    found = [e for e in asked if e["question_type"] == kind]
    assert found, kind
    return found


def right(entry: dict[str, Any]) -> str:
    (text,) = [o[3:] for o in entry["options"] if o.startswith(f"{entry['ground_truth']}. ")]
    return text


def placed() -> dict[str, np.ndarray]:
    """Noun -> points (N,3) 2 cm apart on the solid boxes of its model, in the house (y up); computed from the source alone."""
    nouns = {"bed-1": "bed", "desk-1": "desk", "chair-1": "chair", "sofa-1": "sofa", "stool-1": "stool", "lamp-2": "lamp"}
    nouns["robe-1"] = "wardrobe"
    found = {}
    for jid, x, y, z, yaw in THINGS:
        points = []
        for box in source.MODELS[jid][3]:
            axes = [np.linspace(box[k], box[k + 3], max(2, math.ceil((box[k + 3] - box[k]) / 0.02))) for k in range(3)]
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
            edge = np.zeros(grid.shape[:3], dtype=bool)
            for k in range(3):
                edge[(slice(None),) * k + ([0, -1],)] = True
            points.append(grid[edge])
        local, angle = np.concatenate(points), math.radians(yaw)
        turned = local[:, 0] + 1j * -local[:, 2]  # seen from above, counter-clockwise
        turned = turned * np.exp(1j * angle)
        found[nouns[jid]] = np.stack([turned.real + x, local[:, 1] + y, -turned.imag + z], 1)
    return found


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(cKDTree(a).query(b)[0].min())


def test_the_form_is_official(asked: list[dict[str, Any]], index: SceneIndex) -> None:
    assert {e["question_type"] for e in asked} >= set(QUESTION_TYPES) - {"object_counting", "obj_appearance_order"}
    assert {e["dataset"] for e in asked} == {"front3d"}
    assert {e["scene_name"] for e in asked} == set(index.records)
    assert all((e["options"] is None) == (e["question_type"] in NUMERIC_TYPES) for e in asked)


def test_distances_are_those_of_surfaces_not_of_boxes(asked: list[dict[str, Any]], index: SceneIndex) -> None:
    points, far = placed(), 0.0
    (content,) = facts(index).values()
    boxes = {t["category"]: (np.array(t["low"]), np.array(t["high"])) for t in content["things"]}
    for entry in of(asked, "object_abs_distance"):
        a, b = re.findall(r"the (\w+) and the (\w+) \(in meters", entry["question"])[0]
        assert float(entry["ground_truth"]) == pytest.approx(distance(points[a], points[b]), abs=0.065)
        apart = np.maximum(np.maximum(boxes[a][0] - boxes[b][1], boxes[b][0] - boxes[a][1]), 0)
        far = max(far, abs(float(entry["ground_truth"]) - float(np.linalg.norm(apart))))
    assert far > 0.2, "between the boxes it would be another distance"
    for entry in of(asked, "object_rel_distance"):
        (target,) = re.findall(r"is the closest to the (\w+)\?", entry["question"])
        named = [o[3:] for o in entry["options"]]
        assert right(entry) == min(named, key=lambda n: distance(points[n], points[target]))


def test_sizes_are_those_of_the_models(asked: list[dict[str, Any]]) -> None:
    expected = {"bed": 200, "desk": 120, "chair": 95, "sofa": 200, "stool": 42, "lamp": 50, "wardrobe": 210}
    for entry in of(asked, "object_size_estimation"):
        (noun,) = re.findall(r"of the (\w+), measured", entry["question"])
        assert float(entry["ground_truth"]) == pytest.approx(expected[noun], abs=1)


def test_the_room_is_as_large_as_its_floor(asked: list[dict[str, Any]]) -> None:
    x, z = np.array(CORNERS).T
    area = abs(float(x @ np.roll(z, 1) - z @ np.roll(x, 1))) / 2
    (entry,) = of(asked, "room_size_estimation")
    assert float(entry["ground_truth"]) == pytest.approx(area, rel=0.02)


def test_directions_and_routes(asked: list[dict[str, Any]]) -> None:
    """Angles by complex numbers in the house's plan, counter-clockwise seen from above; routes stay on free floor."""
    at = {noun: complex(*((p.min(0) + p.max(0)) / 2)[[0, 2]]).conjugate() for noun, p in placed().items()}
    for kind in ("easy", "medium", "hard"):
        for entry in of(asked, f"object_rel_direction_{kind}"):
            names = re.match(r"If I am standing by the (\w+) and facing the (\w+), is the (\w+) to", entry["question"])
            assert names is not None
            stand, facing, point = (at[n] for n in names.groups())
            assert names[1] != "lamp", "nobody stands by a lamp overhead"
            angle = np.angle((point - stand) / (facing - stand), deg=True)
            side = "left" if angle > 0 else "right"
            expected = {"easy": side, "medium": "back" if abs(angle) > 135 else side}
            assert right(entry) == expected.get(kind, f"{'front' if abs(angle) < 90 else 'back'}-{side}")
    for entry in of(asked, "route_planning"):
        text = entry["question"]
        stops = [re.findall(r"beginning at the (\w+)", text)[0], *re.findall(r"until the (\w+)", text)]
        for a, b in pairwise(stops):
            way = at[a] + np.linspace(0, 1, 200) * (at[b] - at[a])
            off = (way.real > 0.6) & (-way.imag > 1.1)
            assert not off.any(), "the corner that is cut off is no floor"


def test_distances_are_measured_on_request_only(tmp_path: Path) -> None:
    one_house(tmp_path, bedroom())
    found = prepare(tmp_path)
    (content,) = facts(found).values()
    assert not {"gaps_m", "longest_m"} & set(content)
    assert "vsibench" not in found.content["annotations"]


def test_the_benchmark_scores_them(index: SceneIndex) -> None:
    member = registry.create("benchmarks", {"name": "vsibench", "kind": "vsibench", "options": {}})
    member.bootstrap = Bootstrap(10, 0)
    samples = member.samples(index, "train")
    for text, value in ((None, 100.0), ("nothing", 0.0)):
        outputs = [ModelOutput(raw_text=s.references[0] if text is None else text) for s in samples]
        results = member.score(samples, [member.parse(s, o) for s, o in zip(samples, outputs, strict=True)], index)
        assert next(r.value for r in results if (r.metric, r.subset, r.reference) == ("score", "all", "")) == value
