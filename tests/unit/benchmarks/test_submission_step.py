"""Answers to hidden questions: predicted, not scored, written in the official format."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_bench_qa import hidden_files

from pipeline import __main__ as command
from pipeline.commands import score
from pipeline.core.finished import digests_of
from pipeline.core.provenance import file_digest, read_manifest, write_manifest
from pipeline.evaluation.records import SCHEMA, questions_digest
from pipeline.metrics.scorefile import read_scores

MEMBER = {"name": "scanqa", "kind": "scanqa", "options": {}}


def row(sample, answer, task="qa"):
    named = {"dataset": "hand", "split": "test", "benchmark": "scanqa", "scene_id": sample.scene_id}
    named |= {"sample_id": sample.sample_id, "task": task, "prompt": "", "raw_text": answer, "answer": answer}
    return named | {"parsed": True, "boxes": [], "scores": [], "probabilities": [], "value": None, "count": 0}


@pytest.fixture
def answered(make_index, member, record, tmp_path) -> Path:
    """The manifest of finished answers to three hidden questions."""
    index = make_index([record("room0", [])], hidden_files())
    samples = member("scanqa").samples(index, "test")
    folder = tmp_path / "predictions"
    folder.mkdir()
    path = folder / "scanqa.parquet"
    pq.write_table(pa.Table.from_pylist([row(s, f"red {i}") for i, s in enumerate(samples)], schema=SCHEMA), path)
    made = {"dataset": "hand", "split": "test", "scenes": index.content_digest("test"), "files": digests_of(folder)}
    write_manifest(folder / "manifest.json", made | {"questions": {"scanqa": questions_digest(samples)}})
    return folder / "manifest.json"


def test_score_says_that_there_is_nothing_to_score(answered, tmp_path, capsys):
    out = tmp_path / "scores/scanqa.parquet"
    spec = {"benchmarks": {"scanqa": MEMBER}, "split": "test", "bootstrap": {"replicates": 20, "seed": 0}, "code": ""}
    score.run(
        argparse.Namespace(scenes=tmp_path / "manifest.json", predictions=answered, out=[out], spec=spec, threads=1, gpus=0)
    )
    assert "warning: scanqa: nothing to score: the 3 questions of this split come without answers" in capsys.readouterr().out
    assert set(read_scores(out).sets.metric) == {"unparsed"}


def test_submission_in_the_official_format(answered, tmp_path, capsys):
    out = tmp_path / "pred.test_wo_obj.json"
    assert command.main(["submission", "--predictions", str(answered), "--out", str(out)]) == 0
    assert "3 answers about 1 scenes, split test" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content[1] == {
        "scene_id": "room0",
        "question_id": "test-room0-1",
        "answer_top10": ["red 1"] * 10,
        "bbox": [],
    }
    assert [entry["question_id"] for entry in content] == ["test-room0-0", "test-room0-1", "test-room0-2"]


def test_answers_that_are_not_there_changed_or_of_another_kind_are_refused(answered, tmp_path, capsys):
    out = tmp_path / "pred.json"
    arguments = ["submission", "--predictions", str(answered), "--out", str(out)]
    assert command.main([*arguments, "--benchmark", "sqa3d"]) == 2
    assert "there are no answers to 'sqa3d'" in capsys.readouterr().err
    path = answered.with_name("scanqa.parquet")
    rows = pq.read_table(path, partitioning=None).to_pylist()
    pq.write_table(pa.Table.from_pylist([r | {"task": "caption"} for r in rows], schema=SCHEMA), path)
    assert command.main(arguments) == 2
    assert "is not the file that was finished" in capsys.readouterr().err
    made = read_manifest(answered, made_by="x")
    write_manifest(answered, made | {"files": {path.name: file_digest(path)}})
    assert command.main(arguments) == 2
    assert "its task is caption" in capsys.readouterr().err
    assert not out.exists()
