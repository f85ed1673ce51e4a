"""The same benchmark code scores every dataset kind: rooms, ScanNet's format, 3D-FRONT, whatever has annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_benchmarks import OWN, perfect_output
from test_datasets import KINDS, make

from pipeline.core import registry
from pipeline.core.errors import AnnotationError
from pipeline.metrics.stats import Bootstrap
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Answer

MEMBERS = set(registry.member_files("benchmarks"))


def member(kind: str, **options: Any) -> Any:
    fields = registry.member_class("benchmarks", kind).options_model.model_fields
    chosen = {"meteor": False} if "meteor" in fields else {}
    found = registry.create("benchmarks", {"name": kind, "kind": kind, "options": chosen | options})
    found.bootstrap = Bootstrap(10, 0)
    return found


@pytest.fixture(scope="module", params=KINDS)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SceneIndex]:
    base: Path = tmp_path_factory.mktemp(f"scored_{request.param}")
    make(request.param, base / "scenes", base / "sources")
    return request.param, SceneIndex(base / "scenes" / "manifest.json")


def annotated(index: SceneIndex) -> list[tuple[str, str]]:
    """(benchmark kind, split) pairs that the dataset has files of."""
    found = index.content["annotations"]
    return [(kind, split) for kind in sorted(MEMBERS & set(found)) for split in found[kind]]


def test_all_annotations_are_read_and_scored(dataset: tuple[str, SceneIndex]) -> None:
    kind, index = dataset
    if not annotated(index):
        pytest.skip(f"{kind} brings no annotations")
    for name, split in annotated(index):
        benchmark = member(name, skip_missing_scenes=True)
        samples = benchmark.samples(index, split)
        answers = [benchmark.parse(s, perfect_output(s, index.records[s.scene_id])) for s in samples]
        results = benchmark.score(samples, answers, index)
        best = {r.metric: r.value for r in results if r.subset == "all" and not r.reference}
        worst = {
            r.metric: r.value
            for r in benchmark.score(samples, [Answer(parsed=False)] * len(samples), index)
            if r.subset == "all" and not r.reference
        }
        assert best["unparsed"] == 0.0, name
        assert np.isfinite(list(best.values())).all(), name
        assert best[benchmark.headline] >= worst[benchmark.headline], name
        if benchmark.task == "qa" and name in OWN:
            assert (best[benchmark.headline], worst[benchmark.headline]) == (100.0, 0.0), name


def test_scenes_of_another_dataset_are_refused(dataset: tuple[str, SceneIndex], tiny_rooms: SceneIndex) -> None:
    """Annotations of the rooms do not pass for those of other scenes that happen to be prepared."""
    kind, index = dataset
    if not annotated(index) or kind == "rooms":
        pytest.skip("the rooms themselves, or no annotations")
    name, split = annotated(index)[0]
    index.content["annotations"][name][split] = [str(p) for p in tiny_rooms.annotation_files(name, "test")]
    with pytest.raises(AnnotationError, match="not in the prepared split"):
        member(name).samples(index, split)
