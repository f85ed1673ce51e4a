"""One Java process for a whole scoring job: starts are counted with a fake `java` that speaks METEOR's protocol."""

from __future__ import annotations

import argparse
import stat
import sys
from pathlib import Path

import pytest

from pipeline.commands import score
from pipeline.core import registry
from pipeline.core.finished import digests_of
from pipeline.core.provenance import write_manifest
from pipeline.evaluation.records import questions_digest, row, write_records
from pipeline.metrics import java
from pipeline.scenes.types import ModelOutput

FAKE_JAVA = """#!{python}
import sys
with open({log!r}, "a") as log:
    log.write("started\\n")
for line in sys.stdin:
    print(" ".join(["1.0"] * 23) if line.startswith("SCORE") else "0.5\\n0.5", flush=True)
"""


@pytest.fixture
def fake_java(tmp_path, monkeypatch) -> Path:
    """A log with one line per start of a fake Java that answers every sentence alike."""
    log = tmp_path / "starts.log"
    log.write_text("")
    program = tmp_path / "fake_java" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(FAKE_JAVA.format(python=sys.executable, log=str(log)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(java, "java_home", lambda: program.parents[1])
    # Where nothing can be cached the paraphrase table is not filtered, which a fake needs even less.
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "no folder"))
    return log


def starts(log: Path) -> int:
    return len(log.read_text().splitlines())


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("official", [False, True])
def test_two_text_benchmarks_with_subsets_and_resamples_start_java_once(
    fake_java, make_index, record, tmp_path, monkeypatch, filtered, official
):
    """Also where the paraphrase table was filtered for the words of the references, of which each benchmark has its own."""
    if filtered:
        monkeypatch.setattr(java, "filtered_table", lambda *_: tmp_path / "part of the table")
    described = {"scene_id": "room0", "object_name": "chair", "description": "a red chair", "token": ["it", "'s", "crimson"]}
    asked = {"scene_id": "room0", "question": "What?", "answers": ["red", "dark red"], "object_ids": []}
    index = make_index(
        [record("room0", ["chair"] * 3)],
        {
            "scan2cap": {"test": {"s.json": [described | {"object_id": str(i), "ann_id": "0"} for i in range(3)]}},
            "scanqa": {"test": {"q.json": [asked | {"question_id": f"q{i}"} for i in range(4)]}},
        },
    )
    members = {
        "captions": {"name": "captions", "kind": "scan2cap", "options": {"official": official}},
        "answers": {"name": "answers", "kind": "scanqa", "options": {}},
    }
    folder = tmp_path / "predictions"
    folder.mkdir()
    asked_of = {}
    for name, spec in members.items():
        benchmark = registry.create("benchmarks", spec)
        output = ModelOutput(raw_text="a red lamp")
        samples = benchmark.samples(index, "test")
        rows = [row("hand", "test", name, s, "", output, benchmark.parse(s, output)) for s in samples]
        write_records(folder / f"{name}.parquet", rows, "0")
        asked_of[name] = questions_digest(samples)
    content = {"dataset": "hand", "split": "test", "scenes": index.content_digest("test"), "questions": asked_of}
    write_manifest(folder / "manifest.json", content | {"files": digests_of(folder)})
    spec = {"benchmarks": members, "split": "test", "bootstrap": {"replicates": 20, "seed": 0}}
    out = [tmp_path / "scores" / f"{name}.parquet" for name in members]
    args = argparse.Namespace(scenes=tmp_path / "manifest.json", predictions=folder / "manifest.json", out=out, spec=spec)
    score.run(args)
    assert starts(fake_java) == 1
    score.run(args)
    assert starts(fake_java) == 2


def test_without_a_session_every_metric_starts_its_own(fake_java):
    for _ in range(2):
        with java.meteor_runtime(["chair"]) as runtime:
            runtime.statistics(["a chair"], [("chair",)])
    assert starts(fake_java) == 2
