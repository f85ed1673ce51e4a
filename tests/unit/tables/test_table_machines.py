"""Which machine a run was made on: in the rows, and said when they differ."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import synthetic_study as study

from pipeline import __main__ as command
from pipeline.core.provenance import run_record
from pipeline.study import paths
from pipeline.tables.machines import machine_notes, machine_of
from pipeline.tables.schema import read_table

VERSIONS = {"python": "3.11.2", "torch": "2.9.0", "numpy": "2.3.1", "pandas": "2.3.0"}


def write_record(folder: Path, cpu: str, **versions: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    record = {"machine": {"cpu": cpu, "instructions": "AVX2"}, "versions": VERSIONS | versions, "host": "node7"}
    (folder / "run.json").write_text(json.dumps(record))
    return folder / "run.json"


def write_cell(root: Path, backbone: str, cpus: dict[str, str], out: Path) -> Path:
    """A cell whose teachers were trained on these CPUs."""
    spec, scores, manifests = study.write_cell(root, backbone, teachers=tuple(cpus))
    for run, manifest in zip(spec["runs"], manifests, strict=True):
        write_record(manifest.parent, cpus[run["teacher"]])
    files = ["--scores", *map(str, scores), "--runs", *map(str, manifests), "--out", str(out)]
    assert command.main(["cell", "--spec", json.dumps(spec), *files]) == 0
    return out


def test_run_record_tells_the_processor(tmp_path):
    with run_record(tmp_path / "run.json"):
        pass
    assert json.loads((tmp_path / "run.json").read_text())["machine"]["cpu"]
    assert f"python {platform.python_version()}" in machine_of([tmp_path / "run.json"])


def test_label_holds_what_decides_the_last_digits(tmp_path):
    trained = write_record(tmp_path / "train", "EPYC 7B13")
    label = "EPYC 7B13, AVX2, python 3.11.2, torch 2.9.0, numpy 2.3.1"
    assert machine_of([trained]) == label
    answered = write_record(tmp_path / "predict", "EPYC 7B13", torch="2.10.0")
    assert machine_of([trained, answered]) == f"{label} / {label.replace('2.9.0', '2.10.0')}"
    assert machine_of([trained, write_record(tmp_path / "again", "EPYC 7B13")]) == label


@pytest.mark.parametrize("content", [None, "", "[]", '{"host": "old", "versions": "none"}', "\x00"])
def test_a_missing_older_or_broken_record_is_not_known(tmp_path, content):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    assert machine_of([path]) == ""


def test_rows_of_one_machine_need_no_word(tmp_path):
    out = write_cell(tmp_path, "tiny", dict.fromkeys(("none", "geometry"), "EPYC"), tmp_path / "cell.parquet")
    rows, _ = read_table(out, made_by="x")
    assert {tuple(row["machines"]) for row in rows if row["seeds"]} == {(next(iter(rows))["machines"][0],) * 2}
    assert all(row["machines"] == [] for row in rows if row["reference"])
    assert machine_notes(rows) == []


def test_answers_from_another_machine_are_seen_in_the_usual_folders(tmp_path):
    spec, scores, manifests = study.write_cell(tmp_path, "tiny", teachers=("none",), seeds=(0,))
    write_record(manifests[0].parent, "EPYC")
    answered = tmp_path / paths.PREDICTIONS.format(dataset="rooms", backbone="tiny", **spec["runs"][0])
    write_record(answered.parent, "Xeon")
    out = tmp_path / "cell.parquet"
    files = ["--scores", *map(str, scores), "--runs", *map(str, manifests), "--out", str(out)]
    assert command.main(["cell", "--spec", json.dumps(spec), *files]) == 0
    rows, _ = read_table(out, made_by="x")
    assert rows[0]["machines"][0].startswith("EPYC, ")
    assert " / Xeon, " in rows[0]["machines"][0]


def test_a_summary_of_cells_from_two_machines_says_so(tmp_path, capsys):
    cells = [
        write_cell(tmp_path, name, dict.fromkeys(("none", "geometry"), cpu), tmp_path / f"{name}.parquet")
        for name, cpu in (("large", "EPYC"), ("tiny", "Xeon"))
    ]
    out = tmp_path / "summary.parquet"
    assert command.main(["summary", "--cells", *map(str, cells), "--out", str(out)]) == 0
    assert "\nwarning: Rows come from 2 machines or library versions" in capsys.readouterr().out
    text = out.with_suffix(".md").read_text()
    assert "- EPYC, AVX2, python 3.11.2, torch 2.9.0, numpy 2.3.1: rooms/large\n- Xeon" in text
    assert "Compared with a" not in text  # every run has its baseline on its own machine


def test_a_baseline_from_another_machine_is_named(tmp_path):
    out = write_cell(tmp_path, "tiny", {"none": "EPYC", "geometry": "Xeon"}, tmp_path / "cell.parquet")
    rows, _ = read_table(out, made_by="x")
    assert machine_notes(rows)[-1] == (
        "Compared with a `none` of another machine: rooms/tiny/geometry/3drs/seed0, rooms/tiny/geometry/3drs/seed1"
    )


def test_two_summaries_can_be_merged_and_say_so(tmp_path, capsys):
    parts = []
    for name, cpu in (("large", "EPYC"), ("tiny", "Xeon")):
        cell = write_cell(tmp_path, name, dict.fromkeys(("none", "geometry"), cpu), tmp_path / f"{name}.parquet")
        parts.append(tmp_path / name / "summary.parquet")
        assert command.main(["summary", "--cells", str(cell), "--out", str(parts[-1])]) == 0
    assert "warning" not in capsys.readouterr().out
    out = tmp_path / "both.parquet"
    assert command.main(["summary", "--cells", *map(str, parts), "--out", str(out)]) == 0
    assert "warning: Rows come from 2 machines" in capsys.readouterr().out
    _, metadata = read_table(out, made_by="x")
    assert len(metadata["cells"]) == 2
