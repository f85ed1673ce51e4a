"""Rows of a cell against numbers worked out by hand, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_study as study
from scipy.stats import t

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.parquet import read_parquet, write_parquet
from pipeline.core.provenance import read_manifest, write_manifest
from pipeline.study import paths
from pipeline.tables.aggregate import cell_rows, unit
from pipeline.tables.schema import SCHEMA
from pipeline.tables.scores import BenchmarkFacts, Cell, RunKey, RunScores, SampleScores, SetScore, load_cell
from pipeline.tables.text import mark
from pipeline.tables.uncertainty import MIN_SCENES

KEY = ("scanqa", "em", "all", "")
CHANCE = ("scanqa", "em", "all", "chance")


def run_scores(value: float, replicates: list[float], scenes: int = 40) -> RunScores:
    samples = SampleScores(("a", "b"), ("s0", "s1"), np.asarray([value, value]))
    sets = {KEY: SetScore(value, 80, scenes, np.asarray(replicates))}
    sets[CHANCE] = SetScore(5.0, 80, scenes, np.asarray([5.0, 5.0, 5.0]))
    return RunScores(sets, {("scanqa", "em"): samples}, {"scanqa": "d"}, "m", f"machine {value:.0f}")


def hand_made(scenes: int) -> Cell:
    """Two teachers, two seeds, three resamples: differences per seed +4 and +2, per resample (+1, +3, +5)."""
    runs = {
        RunKey("none", "3drs", 0): run_scores(20.0, [18.0, 20.0, 22.0], scenes),
        RunKey("none", "3drs", 1): run_scores(30.0, [28.0, 30.0, 32.0], scenes),
        RunKey("geometry", "3drs", 0): run_scores(24.0, [20.0, 24.0, 28.0], scenes),
        RunKey("geometry", "3drs", 1): run_scores(32.0, [28.0, 32.0, 36.0], scenes),
    }
    return Cell("rooms", "tiny", {"scanqa": BenchmarkFacts("qa", "em")}, runs, 0.95, "spec")


@pytest.fixture
def hand_cell() -> Cell:
    return hand_made(40)


def test_values_intervals_and_paired_differences_by_hand(hand_cell):
    none, geometry, chance = cell_rows(hand_cell)
    assert (none["teacher"], none["value"], none["seed_values"], none["seeds"]) == ("none", 25.0, [20.0, 30.0], [0, 1])
    assert none["seed_std"] == pytest.approx(50**0.5)
    assert none["machines"] == ["machine 20", "machine 30"]
    assert none["replicates"] == [[18.0, 20.0, 22.0], [28.0, 30.0, 32.0]]
    # Scenes: variance of the mean replicates (23, 25, 27) is 8 / 3, times 40 / 39. Seeds: within teachers 50 + 32 over 2, the
    # own 50 is larger: 25 for two seeds. Nothing is both. Two teachers move alike: 81 and 1 in squares, 1.02 degrees.
    scenes, freedom = 8 / 3 * 40 / 39, (81 + 1) ** 2 / (81**2 + 1)
    total = scenes + 25
    half = t.ppf(0.975, total**2 / (scenes**2 / 39 + 25**2 / freedom)) * total**0.5
    assert none["ci_low"] == max(0.0, 25.0 - half)
    assert none["ci_high"] == min(100.0, 25.0 + half)
    assert none["diff_to_none"] is None
    assert geometry["diff_to_none"] == 3.0
    assert geometry["diff_seed_values"] == [4.0, 2.0]
    assert geometry["diff_low"] < 0 < geometry["diff_high"]
    assert geometry["diff_high"] - 3.0 == pytest.approx(3.0 - geometry["diff_low"])
    assert geometry["diff_p"] > 0.05
    assert (chance["row_type"], chance["teacher"], chance["reference"]) == ("reference", "", "chance")
    assert (chance["value"], chance["n_seeds"], chance["seeds"]) == (5.0, 0, [])
    assert (chance["ci_low"], chance["ci_high"]) == (None, None)  # a level that never varies
    assert chance["diff_to_none"] == -20.0


@pytest.mark.parametrize("scenes", [1, MIN_SCENES - 1, MIN_SCENES])
def test_no_interval_and_no_mark_below_the_least_number_of_scenes(scenes):
    for row in cell_rows(hand_made(scenes))[:2]:
        assert (row["ci_low"] is None) == (row["ci_high"] is None) == (scenes < MIN_SCENES)
        if row["teacher"] == "geometry":
            assert (row["diff_low"] is None) == (row["diff_p"] is None) == (scenes < MIN_SCENES)
            assert mark(row) == ""


def test_no_interval_and_no_mark_with_one_seed_or_two_of_one_teacher(hand_cell):
    one_seed = {key: run for key, run in hand_cell.runs.items() if key.seed == 0}
    one_teacher = {key: run for key, run in hand_cell.runs.items() if key.teacher == "none"}
    for runs in (one_seed, one_teacher):
        for row in cell_rows(replace(hand_cell, runs=runs)):
            assert [row[name] for name in ("ci_low", "ci_high", "diff_low", "diff_high", "diff_p")] == [None] * 5
            assert mark(row) == ""


def test_a_seed_that_tells_more_than_the_others_is_believed(hand_cell):
    """The pooled variance of the seeds may not hide a teacher that trains unsteadily."""
    calm = cell_rows(hand_cell)[1]
    key = RunKey("geometry", "3drs", 1)
    hand_cell.runs[key] = run_scores(90.0, [86.0, 90.0, 94.0])
    wild = cell_rows(hand_cell)[1]
    assert wild["diff_high"] - wild["diff_low"] > 2 * (calm["diff_high"] - calm["diff_low"])


def test_every_column_of_the_schema_is_filled_and_no_other(hand_cell):
    for row in cell_rows(hand_cell):
        assert set(row) == set(SCHEMA.names)


def test_one_seed_has_no_deviation(hand_cell):
    runs = {key: run for key, run in hand_cell.runs.items() if key.seed == 0}
    assert [row["seed_std"] for row in cell_rows(replace(hand_cell, runs=runs))] == [None, None, None]


def test_a_seed_without_baseline_is_refused(hand_cell):
    runs = {key: run for key, run in hand_cell.runs.items() if key != RunKey("none", "3drs", 1)}
    with pytest.raises(DataError, match="seed 1 but the baseline"):
        cell_rows(replace(hand_cell, runs=runs))


def test_runs_on_other_samples_are_refused(hand_cell):
    key = RunKey("geometry", "3drs", 1)
    samples = {("scanqa", "em"): SampleScores(("a", "c"), ("s0", "s1"), np.zeros(2))}
    runs = dict(hand_cell.runs) | {key: replace(hand_cell.runs[key], samples=samples)}
    with pytest.raises(DataError, match=r"differ: b, c(.|\n)*seed1 against results/scores/rooms/tiny/none/3drs/seed0"):
        cell_rows(replace(hand_cell, runs=runs))


def test_runs_with_other_metrics_are_refused(hand_cell):
    hand_cell.runs[RunKey("geometry", "3drs", 1)].sets["scanqa", "em", "what", ""] = SetScore(1.0, 1, 1, np.zeros(3))
    with pytest.raises(DataError, match="metrics differ: scanqa em what"):
        cell_rows(hand_cell)


def test_units():
    assert unit("grounding", "acc@0.25") == "percent"
    assert unit("caption", "cider@0.5") == "x100"
    assert unit("caption", "gated") == "percent"
    assert unit("representation", "same_voxel") == "cosine"
    assert unit("representation", "no_pairs") == "percent"


def test_load_cell_reads_real_score_files(tmp_path):
    spec, scores, manifests = study.write_cell(tmp_path, "tiny")
    cell = load_cell(spec, scores, manifests)
    assert list(cell.benchmarks) == list(study.BENCHMARKS)
    assert cell.benchmarks["correspondence"] == BenchmarkFacts("representation", "same_voxel")
    rows = cell_rows(cell)
    easy = [row for row in rows if row["subset"] == "easy"]
    assert len(easy) == 6
    assert {row["n"] for row in easy} == {64}
    assert not any(row["headline"] for row in easy)
    assert [row["teacher"] for row in rows if row["headline"] and row["benchmark"] == "scanqa"] == [
        "none",
        "geometry",
        "shuffled",
    ]
    assert all(np.shape(row["replicates"]) == (2, 200) for row in rows if row["headline"])
    assert len({row["run_digests"][0] for row in rows if row["run_digests"]}) == 3


@pytest.mark.parametrize("what", ["score file", "run manifest"])
def test_a_missing_file_is_named(tmp_path, what):
    spec, scores, manifests = study.write_cell(tmp_path, "tiny")
    given = {"score file": (scores[:-1], manifests), "run manifest": (scores, manifests[:-1])}[what]
    with pytest.raises(DataError, match=f"1 of .* {what}s are missing: .*tiny/shuffled/3drs/seed1") as error:
        load_cell(spec, *given)
    assert "snakemake --cores all results/" in str(error.value)


def test_a_file_of_another_cell_is_refused(tmp_path):
    spec, scores, manifests = study.write_cell(tmp_path, "tiny")
    other = tmp_path / paths.SCORES.format(
        dataset="rooms", backbone="large", teacher="none", recipe="3drs", seed=0, benchmark="scanqa"
    )
    with pytest.raises(DataError, match="is not a score file of this cell"):
        load_cell(spec, [*scores, other], manifests)
    with pytest.raises(DataError, match="is given twice"):
        load_cell(spec, [*scores, scores[0]], manifests)


def test_a_file_with_another_benchmarks_content_is_refused(tmp_path):
    spec, scores, manifests = study.write_cell(tmp_path, "tiny")
    scores[1].write_bytes(scores[0].read_bytes())
    with pytest.raises(DataError, match="holds scores of 'scanrefer' on 'rooms'"):
        load_cell(spec, scores, manifests)


def made_with(spec: dict[str, Any], **other: Any) -> dict[str, Any]:
    """The cell's spec with the options that its runs and scores must have, as pipeline/study/specs.py adds them."""
    teachers = {run["teacher"]: {"name": run["teacher"], "options": {}} for run in spec["runs"]}
    scores = {"split": "test", "bootstrap": {"replicates": 200, "seed": 0}}
    options = {"backbone": {"kind": "internvl"}, "recipes": {"3drs": {"weight": 0.5}}, "teachers": teachers, "scores": scores}
    return spec | {"made_with": options | other, "benchmarks": {name: {"options": {}} for name in spec["benchmarks"]}}


@pytest.fixture
def whole_cell(tmp_path: Path) -> tuple[dict[str, Any], list[Path], list[Path]]:
    """A cell whose runs and scores tell their options: its spec, score files, run manifests."""
    spec, scores, manifests = study.write_cell(tmp_path, "tiny")
    spec = made_with(spec)
    for path in manifests:
        content = read_manifest(path, made_by="")
        content |= {"backbone": spec["made_with"]["backbone"], "recipe": spec["made_with"]["recipes"]["3drs"]}
        write_manifest(path, content | {"member_of_features": spec["made_with"]["teachers"][content["run"]["teacher"]]})
    for path in scores:
        table = read_parquet(path, made_by="")
        metadata = json.loads(table.schema.metadata[b"pipeline"])
        metadata |= {**spec["made_with"]["scores"], "member": {"options": {}}}
        write_parquet(path, table.replace_schema_metadata({"pipeline": json.dumps(metadata)}))
    return spec, scores, manifests


def test_runs_and_scores_of_another_study_under_the_same_names_are_refused(whole_cell):
    """Scores of split val, copied into the place of test's, were a table without a word."""
    spec, scores, manifests = whole_cell
    assert len(load_cell(spec, scores, manifests).runs) == 6
    changes: list[tuple[dict[str, Any], str]] = [
        ({"scores": {"split": "val", "bootstrap": {"replicates": 200, "seed": 0}}}, "its split is"),
        ({"scores": {"split": "test", "bootstrap": {"replicates": 200, "seed": 1}}}, "its bootstrap is"),
        ({"recipes": {"3drs": {"weight": 0.9}}}, "its recipe is"),
        ({"backbone": {"kind": "qwen2_5_vl"}}, "its backbone is"),
        (
            {"teachers": {**spec["made_with"]["teachers"], "geometry": {"name": "geometry", "options": {"scale": 2}}}},
            "features",
        ),
    ]
    for change, said in changes:
        with pytest.raises(DataError, match=said) as error:
            load_cell(spec | {"made_with": spec["made_with"] | change}, scores, manifests)
        assert "snakemake --cores all -f " in str(error.value)
    with pytest.raises(DataError, match="its member is"):
        load_cell(spec | {"benchmarks": {name: {"options": {"ptb": True}} for name in spec["benchmarks"]}}, scores, manifests)


def test_a_spec_without_runs_is_refused():
    with pytest.raises(ConfigError, match="no 'runs'"):
        load_cell({"dataset": "rooms", "backbone": "tiny", "benchmarks": {}}, [Path("x")], [])
