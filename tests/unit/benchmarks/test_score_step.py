"""The command `score`: checks of predictions, content of score files, determinism, benchmarks that leave replicates to it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_files import change_manifest

from pipeline.benchmarks.base import MetricResult
from pipeline.commands import score
from pipeline.core import registry
from pipeline.core.errors import ConfigError, DataError, PredictionError
from pipeline.core.finished import digests_of
from pipeline.core.parquet import write_parquet
from pipeline.core.provenance import file_digest, write_manifest
from pipeline.evaluation.records import questions_digest
from pipeline.metrics.scorefile import read_scores, write_scores
from pipeline.metrics.stats import Bootstrap, mean_replicates, scene_weights
from pipeline.scenes.index import SceneIndex, record_from_json, write_index
from pipeline.scenes.types import Sample

MEMBERS = {
    "scanrefer": {"name": "scanrefer", "kind": "scanrefer", "options": {}},
    "looking": {"name": "looking", "kind": "correspondence", "options": {}},
}
SPEC = {"benchmarks": MEMBERS, "split": "test", "bootstrap": {"replicates": 20, "seed": 0}, "code": "c"}


def prediction(sample_id: str, scene_id: str, benchmark: str, **values: object) -> dict[str, object]:
    row = {"dataset": "hand", "split": "test", "benchmark": benchmark, "scene_id": scene_id, "sample_id": sample_id}
    row |= {"task": "", "prompt": "", "raw_text": "", "answer": "", "parsed": True, "boxes": [], "scores": []}
    return row | {"probabilities": [], "value": None, "count": 0} | values


@pytest.fixture
def job(make_index, record, box, tmp_path):
    """Arguments of the command for two scenes, two benchmarks and good predictions; ``job.rows`` are the predictions."""
    entries = [
        {"scene_id": s, "object_id": "0", "object_name": "chair", "ann_id": a, "description": "a chair"}
        for s, a in (("room0", "0"), ("room1", "0"), ("room0", "1"))
    ]
    make_index(
        [record("room0", ["chair"]), record("room1", ["chair"])],
        {"scanrefer": {"test": {"ScanRefer_filtered_test.json": entries}}},
    )
    ids = [("room0|0|0", "room0"), ("room1|0|0", "room1"), ("room0|0|1", "room0")]
    shown = [box(0.0), box(3.0), box(0.0)]
    rows = {
        "scanrefer": [
            prediction(i, s, "scanrefer", boxes=[list(b)], scores=[0.5]) for (i, s), b in zip(ids, shown, strict=True)
        ],
        "looking": [
            prediction("room0", "room0", "looking", value=0.5, count=4, scores=[0.25, 8.0]),
            prediction("room1", "room1", "looking", value=None, count=0, scores=[]),
        ],
    }
    folder = tmp_path / "predictions"
    folder.mkdir()
    args = argparse.Namespace(
        scenes=tmp_path / "manifest.json",
        predictions=folder / "manifest.json",
        out=[tmp_path / "scores" / f"{name}.parquet" for name in MEMBERS],
        spec=SPEC,
        threads=1,
        gpus=0,
        rows=rows,
    )
    write(args)
    return args


def write(job: argparse.Namespace, *, seal: bool = True) -> None:
    """The predictions and, with ``seal``, the manifest as `predict` leaves it: digests of the files and of what was asked."""
    for name, rows in job.rows.items():
        pq.write_table(pa.Table.from_pylist(rows), job.predictions.parent / f"{name}.parquet")
    if seal:
        index = SceneIndex(job.scenes)
        asked = {n: questions_digest(registry.create("benchmarks", m).samples(index, "test")) for n, m in MEMBERS.items()}
        content = {"dataset": "hand", "split": "test", "scenes": index.content_digest("test"), "questions": asked}
        write_manifest(job.predictions, content | {"files": digests_of(job.predictions.parent)})


def test_score_files(job):
    score.run(job)
    scores = read_scores(job.out[0])
    sets = scores.sets.set_index(["metric", "subset", "reference"])
    row = sets.loc["acc@0.25", "all", ""]
    assert row.value == pytest.approx(200 / 3)
    assert (row.n, row.n_scenes) == (3, 2)
    weights = scene_weights(["room0", "room1"], 20, 0)
    assert row.replicates == pytest.approx(mean_replicates([100.0, 0.0, 100.0], np.array([0, 1, 0]), weights))
    assert sets.loc["acc@0.25", "all", "chance"].value == 100.0
    single = scores.samples[scores.samples.metric == "acc@0.25"]
    assert single.sample_id.tolist() == ["room0|0|0", "room1|0|0", "room0|0|1"]
    assert single.value.tolist() == [100.0, 0.0, 100.0]
    assert single.scene_id.tolist() == ["room0", "room1", "room0"]
    assert scores.metadata["headline"] == "acc@0.25"
    assert scores.metadata["split"] == "test"
    other = read_scores(job.out[1])
    assert other.sets.set_index("metric").loc["same_voxel"].n == 1
    assert json.loads((job.out[0].parent / "run.json").read_text())["samples"] == {"scanrefer": 3, "looking": 2}


def test_same_predictions_give_the_same_bytes(job):
    score.run(job)
    first = [path.read_bytes() for path in job.out]
    score.run(job)
    assert [path.read_bytes() for path in job.out] == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "1 of 3 samples are missing, 0 are unknown"),
        (lambda rows: rows.append(rows[0]), "1 ids come more than once"),
        (lambda rows: rows.append(rows[0] | {"sample_id": "x"}), "0 of 3 samples are missing, 1 are unknown"),
        (lambda rows: rows.reverse(), "another order"),
        (lambda rows: rows[0].update(scene_id="room9"), "name another scene"),
        (lambda rows: rows[0].update(split="val"), "split is val, not test"),
        (lambda rows: rows[0].update(dataset="other"), "dataset is other, not hand"),
        (lambda rows: rows[0].update(benchmark="scanqa"), "benchmark is scanqa"),
        (lambda rows: rows[0].update(boxes=[[0.0] * 5]), "six finite numbers"),
        (lambda rows: rows[0].update(boxes=[[float("nan")] * 6]), "six finite numbers"),
        (
            lambda rows: rows[0].update(boxes=[[0.0, 0, 0, -1, 1, 1]]),
            "has a box with a negative size",
        ),
        (lambda rows: rows[0].update(boxes=[[1e300, 0, 0, 1, 1, 1]]), "larger or farther than 1,000 km"),
        (lambda rows: rows[0].update(scores=[float("nan")]), "scores .nan. that are not finite numbers"),
        (lambda rows: rows[0].update(scores=[0.5, 0.5]), "one for each box"),
        (lambda rows: [row.update(probabilities=[float("nan")]) for row in rows], "probabilities that are not finite"),
        (lambda rows: rows[0].update(value=float("inf")), "a value or count that is not a finite number"),
        (lambda rows: rows[0].update(sample_id=None), "1 of 3 samples are missing, 1 are unknown"),
        (lambda rows: [row.update(boxes="far away") for row in rows], "not six finite numbers"),
        (lambda rows: [row.update(sample_id=[[1]]) for row in rows], "1 ids come more than once"),
        (lambda rows: [row.update(answer=3) for row in rows], "an answer that is no text"),
        (lambda rows: [row.pop("parsed") for row in rows], "no column parsed"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(job, change, message):
    change(job.rows["scanrefer"])
    write(job)
    with pytest.raises(PredictionError, match=message):
        score.run(job)
    assert not job.out[0].exists()


def test_missing_and_truncated_predictions(job):
    path: Path = job.predictions.parent / "scanrefer.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    change_manifest(job.predictions, lambda content: content.update(files=digests_of(path.parent)))
    with pytest.raises(PredictionError, match="not a readable Parquet"):
        score.run(job)
    path.unlink()
    with pytest.raises(PredictionError, match=r"scanrefer\.parquet does not exist"):
        score.run(job)
    job.predictions.unlink()
    with pytest.raises(DataError, match="does not exist"):
        score.run(job)


def test_answers_to_other_frames_are_refused(job):
    """Prepared again with other frames, samples keep their ids: only the index's digest tells."""
    content = json.loads(job.scenes.read_text())
    records = [record_from_json(scene, where="test") for scene in content["scenes"]]
    records[1] = replace(records[1], frame_ids=("00001",))
    write_index(job.scenes.parent, records, dataset="hand", root="", annotations=content["annotations"], spec="")
    with pytest.raises(PredictionError, match="other scenes or other frames"):
        score.run(job)
    assert not job.out[0].exists()


def test_a_file_that_was_exchanged_after_predicting_is_refused(job):
    score.run(job)
    job.out[0].unlink()
    job.rows["scanrefer"][0]["boxes"] = [[9.0, 0, 0, 1, 1, 1]]
    write(job, seal=False)
    with pytest.raises(PredictionError, match="is not the file that was finished"):
        score.run(job)
    (job.predictions.parent / "scanrefer.parquet").unlink()
    with pytest.raises(PredictionError, match="does not exist"):
        score.run(job)
    assert not job.out[0].exists()


def test_answers_to_other_annotations_are_refused(job):
    """Ids and frames stay the same: only what was asked or expected has changed since."""
    path = job.scenes.parent / "ScanRefer_filtered_test.json"
    path.write_text(path.read_text().replace("a chair", "a red chair", 1))
    files = {path.name: file_digest(path)}
    change_manifest(job.scenes, lambda content: content.update(annotation_files=files))
    with pytest.raises(PredictionError, match="scanrefer asks or expects something else now"):
        score.run(job)
    change_manifest(job.predictions, lambda content: content.update(questions={}))
    with pytest.raises(PredictionError, match=r"questions\.scanrefer is None"):
        score.run(job)


def test_predictions_of_another_run_are_refused(job):
    """Somebody else's predictions, copied into place."""
    run = {"dataset": "hand", "backbone": "b", "teacher": "vggt", "recipe": "3drs", "seed": 0}
    change_manifest(job.predictions, lambda content: content.update(run=run | {"teacher": "none"}))
    job.spec = SPEC | {"run": run}
    with pytest.raises(DataError, match=r'its run is .*"none"'):
        score.run(job)
    change_manifest(job.predictions, lambda content: content.update(run=run))
    score.run(job)


def test_outputs_must_name_benchmarks_of_the_spec(job):
    for out in ([job.out[0].with_name("scanreffer.parquet")], [job.out[0], job.out[0]]):
        with pytest.raises(ConfigError, match="--out names"):
            score.run(argparse.Namespace(**{**vars(job), "out": out}))


def test_a_benchmark_may_leave_replicates_to_the_step():
    samples = [Sample(str(i), scene, "b", "qa") for i, scene in enumerate("aabc")]
    bare = MetricResult("m", "all", 2.0, 3, {"0": 1.0, "2": 2.0, "3": 3.0}, np.zeros(0))
    filled = score.with_replicates(bare, samples, Bootstrap(30, 1))
    assert filled.n_scenes == 3
    weights = scene_weights(["a", "b", "c"], 30, 1)
    assert filled.replicates == pytest.approx(mean_replicates([1.0, 2.0, 3.0], np.array([0, 1, 2]), weights))
    own = replace(bare, replicates=np.ones(30), n_scenes=3)
    assert score.with_replicates(own, samples, Bootstrap(30, 1)) is own


def test_score_file_refuses_doubled_metrics_and_foreign_files(tmp_path):
    result = MetricResult("m", "all", 1.0, 1, {}, np.zeros(3))
    with pytest.raises(ValueError, match="come twice"):
        write_scores(tmp_path / "x.parquet", [result, result], [], {})
    with pytest.raises(DataError, match="does not exist"):
        read_scores(tmp_path / "x.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="carries no digest"):
        read_scores(tmp_path / "x.parquet")
    write_parquet(tmp_path / "x.parquet", pa.table({"a": [1]}))
    with pytest.raises(DataError, match="not a score file"):
        read_scores(tmp_path / "x.parquet")
    write_scores(tmp_path / "x.parquet", [], [], {"dataset": "d"})
    assert len(read_scores(tmp_path / "x.parquet").sets) == 0
