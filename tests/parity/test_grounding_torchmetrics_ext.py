"""ScanRefer accuracy, Multi3DRefer F1 and VSI-Bench averages equal torchmetrics-ext 0.4.2 (by Multi3DRefer's author) to 1e-6.

Made-up scenes and predictions, thousands of queries, through the benchmarks' own reading and scoring. The library loads its
ground truth from the network; the subclasses here hand it ours.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.benchmarks.multi3drefer import EVAL_TYPES
from pipeline.core import registry
from pipeline.metrics.spatial import CHOICE_TYPES, DIRECTION, NUMERIC_TYPES, QUESTION_TYPES
from pipeline.metrics.stats import Bootstrap
from pipeline.scenes.index import SceneIndex, write_index
from pipeline.scenes.types import Answer, SceneObject, SceneRecord

torch = pytest.importorskip("torch")
grounding = pytest.importorskip("torchmetrics_ext.metrics.visual_grounding", reason="pip install torchmetrics-ext==0.4.2")
multi_target = pytest.importorskip("torchmetrics_ext.metrics.visual_grounding._multi_target_grounding")
vqa = pytest.importorskip("torchmetrics_ext.metrics.vqa")

SCENES, OBJECTS, QUERIES = 30, 9, 3000
CATEGORIES = ("chair", "table", "lamp")


def corners(boxes):
    """[centre, size] boxes (N,6) as the library's corners (N,2,3)."""
    table = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
    return torch.from_numpy(np.stack([table[:, :3] - table[:, 3:] / 2, table[:, :3] + table[:, 3:] / 2], axis=1))


def made_up_records(rng):
    for number in range(SCENES):
        boxes = np.concatenate([rng.uniform(-2, 2, (OBJECTS, 3)), rng.uniform(0.3, 2.0, (OBJECTS, 3))], axis=1)
        objects = tuple(SceneObject(i, str(rng.choice(CATEGORIES)), tuple(box.tolist())) for i, box in enumerate(boxes))
        yield SceneRecord(
            f"scene{number:04d}_00", "val", ("0",), np.eye(4)[None], np.eye(3), np.eye(3), (8, 8), (8, 8), objects, boxes, "0"
        )


def predicted(rng, box):
    """A box like the true one: the same, a little off, or far off."""
    spread = rng.choice([0.0, 0.08, 0.25, 3.0])
    return tuple((np.asarray(box) + spread * rng.normal(size=6) * [1, 1, 1, 0, 0, 0]).tolist())


def written(folder: Path, records, name: str, content) -> SceneIndex:
    (folder / f"{name}.json").write_text(json.dumps(content))
    write_index(folder, records, dataset="made_up", root=".", annotations={name: {"val": [f"{name}.json"]}}, spec="0")
    return SceneIndex(folder / "manifest.json")


def member(kind: str):
    found = registry.create("benchmarks", {"name": kind, "kind": kind, "options": {}})
    found.bootstrap = Bootstrap(5, 0)
    return found


def values(results):
    return {(r.metric, r.subset): r.value for r in results if not r.reference}


def test_scanrefer_accuracy(tmp_path):
    rng = np.random.default_rng(0)
    records = list(made_up_records(rng))
    entries = [
        {
            "scene_id": records[i % SCENES].scene_id,
            "object_id": str(int(rng.integers(OBJECTS))),
            "object_name": "thing",
            "ann_id": str(i),
            "description": "the thing",
        }
        for i in range(QUERIES)
    ]
    index = written(tmp_path, records, "scanrefer", entries)
    scanrefer = member("scanrefer")
    samples = scanrefer.samples(index, "val")
    boxes = [index.records[s.scene_id].object(s.target_ids[0]).box for s in samples]
    answers = [Answer(boxes=(predicted(rng, box),), scores=(0.5,)) for box in boxes]
    ours = values(scanrefer.score(samples, answers, index))

    class Handed(grounding.ScanReferMetric):
        def _load_gt_data(self, dataset_file_path, split):
            self.gt_ids_to_idx = {s.sample_id: i for i, s in enumerate(samples)}
            self.gt_eval_types = torch.tensor([self.eval_types_mapping[s.subsets[0]] for s in samples])
            self.gt_aabbs = corners(boxes)

    metric = Handed("", "val")
    metric.update({s.sample_id: corners(a.boxes)[0] for s, a in zip(samples, answers, strict=True)})
    assert len(samples) == QUERIES
    for threshold in (0.25, 0.5):
        for subset in ("all", "unique", "multiple"):
            # Its counts, as its compute() divides them, but in float64.
            right, total = (int(getattr(metric, f"{subset}_{name}")) for name in (f"tp_thresh_{threshold}", "total"))
            assert 0.05 * total < right < 0.95 * total
            assert ours[f"acc@{threshold:g}", subset] == pytest.approx(100 * right / total, abs=1e-6)
            assert float(metric.compute()[f"{subset}_{threshold}"]) == pytest.approx(right / total, abs=1e-6)


def multi_entry(rng, record, number):
    eval_type = EVAL_TYPES[number % len(EVAL_TYPES)]
    count = {"z": 0, "s": 1, "m": int(rng.integers(2, 6))}[eval_type[0]]
    ids = [int(i) for i in rng.permutation(OBJECTS)[:count]]
    head = {"scene_id": record.scene_id, "object_ids": ids, "object_name": "thing", "ann_id": number}
    return head | {"description": "things", "eval_type": eval_type}


def test_multi3drefer_f1(tmp_path):
    rng = np.random.default_rng(1)
    records = list(made_up_records(rng))
    index = written(tmp_path, records, "multi3drefer", [multi_entry(rng, records[i % SCENES], i) for i in range(QUERIES)])
    multi = member("multi3drefer")
    samples = multi.samples(index, "val")
    targets = [[index.records[s.scene_id].object(i).box for i in s.target_ids] for s in samples]
    answers = []
    for truth in targets:
        said = [predicted(rng, box) for box in truth if rng.random() < 0.8]
        said += [said[0]] if said and rng.random() < 0.2 else []  # a duplicate
        said += [tuple(rng.uniform(0.5, 2, 6).tolist()) for _ in range(int(rng.integers(0, 3)))]
        answers.append(Answer(boxes=tuple(said)))
    results = multi.score(samples, answers, index)
    ours = values(results)

    class Handed(grounding.Multi3DReferMetric):
        def _load_gt_data(self, split):
            for sample, truth in zip(samples, targets, strict=True):
                aabbs = corners(truth).numpy() if truth else None
                self.gt_data[sample.sample_id] = {"gt_aabbs": aabbs, "eval_type": sample.subsets[0]}

    metric = Handed("val", strict=True).set_dtype(torch.float64)
    metric.update({s.sample_id: corners(a.boxes) for s, a in zip(samples, answers, strict=True)})
    theirs = metric.compute()
    assert any(len(a.boxes) > len(t) > 1 for a, t in zip(answers, targets, strict=True))
    for subset in (*EVAL_TYPES, "all"):
        for threshold in (0.25, 0.5):
            expected = 100 * float(theirs[subset if subset.startswith("zt") else f"{subset}_{threshold}"])
            assert 5 < expected < 95
            assert ours[f"f1@{threshold:g}", subset] == pytest.approx(expected, abs=1e-6)
    single = {r.metric: r.per_sample for r in results if r.subset == "all" and not r.reference}
    for sample, answer, truth in zip(samples, answers, targets, strict=True):
        f1 = metric._eval_st_or_mt(corners(answer.boxes), corners(truth)) if truth else metric._eval_zt(corners(answer.boxes))
        found = single["f1@0.25"][sample.sample_id], single["f1@0.5"][sample.sample_id]
        assert found == pytest.approx(tuple(100 * f1), abs=1e-6)


SAID = ("A", "b", "C.", "D. back", "", "7", "3.5 m", "about 3", "12.", "nan", "inf", "-2", "1e1", "two", "\u4e8c", "\U0001f600")


def test_vsibench(tmp_path):
    rng = np.random.default_rng(2)
    records = list(made_up_records(rng))
    entries = []
    for number in range(QUERIES):
        kind = QUESTION_TYPES[number % len(QUESTION_TYPES)]
        choice = kind in CHOICE_TYPES
        entries.append(
            {
                "id": number,
                "dataset": "scannet",
                "scene_name": records[number % SCENES].scene_id,
                "question_type": kind,
                "question": "?",
                "options": [f"{letter}. {letter}" for letter in "ABCD"] if choice else None,
                "ground_truth": str(rng.choice(list("ABCD"))) if choice else f"{rng.uniform(0.3, 12):.3f}",
            }
        )
    index = written(tmp_path, records, "vsibench", entries)
    vsibench = member("vsibench")
    samples = vsibench.samples(index, "val")
    said = []
    for sample in samples:
        # Five decimals: an error that equals a tolerance falls to either side in the library, whose linspace is torch's.
        near = f"{float(sample.answer) * rng.uniform(0.5, 1.6):.5f}" if sample.numeric else sample.answer
        said.append(near if rng.random() < 0.6 else str(rng.choice(SAID)))
    results = vsibench.score(samples, [Answer(text=text.strip()) for text in said], index)
    ours = values(results)

    class Handed(vqa.VSIBenchMetric):
        def _load_gt_data(self, split, dataset_name):
            self.gt_data = {s.sample_id: {"question_type": s.subsets[0], "ground_truth": s.answer} for s in samples}

    metric = Handed()
    metric.update({s.sample_id: text for s, text in zip(samples, said, strict=True)})
    theirs = metric.compute()
    assert 20 < float(theirs["overall_acc"]) < 80
    assert ours["score", "all"] == pytest.approx(float(theirs["overall_acc"]), abs=1e-6)
    for kind in (*NUMERIC_TYPES, "object_rel_distance", DIRECTION, "route_planning", "obj_appearance_order"):
        assert ours["score", kind] == pytest.approx(float(theirs[f"{kind}_acc"]), abs=1e-6)
