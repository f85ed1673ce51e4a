"""The real test files of SQA3D (data/sqa3d): counts per type and the majority level."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import registry
from pipeline.metrics.answers import clean_answer
from pipeline.scenes.index import SceneIndex, write_index
from pipeline.scenes.types import Answer, SceneRecord

ROOT = Path(__file__).parent / "data" / "sqa3d"
FILES = ("v1_balanced_questions_test_scannetv2.json", "v1_balanced_sqa_annotations_test_scannetv2.json")
TYPES = {"what": 1147, "is": 652, "how": 465, "can": 338, "which": 351, "others": 566}


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> SceneIndex:
    folder = tmp_path_factory.mktemp("sqa3d")
    for name in FILES:
        (folder / name).write_bytes(lzma.decompress((ROOT / f"{name}.xz").read_bytes()))
    scenes = sorted({q["scene_id"] for q in json.loads((folder / FILES[0]).read_text())["questions"]})
    records = [
        SceneRecord(s, "test", ("00000",), np.eye(4)[None], np.eye(3), np.eye(3), (8, 8), (8, 8), (), None, "0") for s in scenes
    ]
    write_index(folder, records, dataset="scannet", root=".", annotations={"sqa3d": {"test": list(FILES)}}, spec="0")
    return SceneIndex(folder / "manifest.json")


@pytest.fixture(scope="module")
def sqa3d():
    return registry.create("benchmarks", {"name": "sqa3d", "kind": "sqa3d", "options": {}})


def test_counts_per_type(index, sqa3d):
    samples = sqa3d.samples(index, "test")
    assert len(samples) == 3519
    assert Counter(s.subsets[0] for s in samples) == TYPES
    assert len({s.scene_id for s in samples}) == 67


def test_cleaning_changes_no_official_answer(index, sqa3d):
    answers = {r for s in sqa3d.samples(index, "test") for r in s.references}
    assert len(answers) == 403
    assert {a for a in answers if clean_answer(a) != a} == set()


def test_type_majority_and_perfect_answers(index, sqa3d):
    samples = sqa3d.samples(index, "test")
    results = sqa3d.score(samples, [Answer(text=s.answer) for s in samples], index)
    found = {(r.metric, r.subset, r.reference): r for r in results}
    assert found["em", "all", "type_majority"].value == pytest.approx(21.31, abs=0.005)
    assert found["em", "all", "best_constant"].value == pytest.approx(100 * 385 / 3519)
    assert found["em", "all", ""].value == found["em_refined", "which", ""].value == 100.0
    assert {s: found["em", s, ""].n for s in TYPES} == TYPES
