"""The report page: what it shows with and without its optional inputs, that it needs nothing outside itself."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import report_study as made
import synthetic_study as study

from pipeline import __main__ as command
from pipeline.core.errors import DataError
from pipeline.core.notes import Note
from pipeline.core.provenance import file_digest
from pipeline.report.figures import scatter, smooth, teacher_colors
from pipeline.report.html import inline
from pipeline.report.inputs import example_scenes, feature_paths, run_path, training_curves
from pipeline.report.pictures import best_view, box_corners, principal_colors, project
from pipeline.scenes.index import SceneIndex, add_notes
from pipeline.tables.aggregate import cell_rows
from pipeline.tables.findings import Association, Estimate
from pipeline.tables.schema import write_table
from pipeline.tables.scores import load_cell


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A summary table and all optional inputs."""
    root = tmp_path_factory.mktemp("report")
    rows = cell_rows(load_cell(*study.write_cell(root, "internvl_tiny")))
    metadata = {"level": 0.95, "cells": [{"spec": "abc", "packages": {"numpy": "2"}}]}
    write_table(root / "results/tables/summary.parquet", rows, metadata)
    index = SceneIndex(made.write_scenes(root))
    for teacher in made.TEACHERS:
        made.write_predictions(root, index, teacher)
        made.write_training(root, "internvl_tiny", teacher)
        if teacher != "none":
            made.write_features(root, index, teacher)
    return root


def files(root: Path, what: str) -> list[str]:
    return sorted(str(path) for path in (root / "results" / what).glob("**/manifest.json"))


@pytest.fixture(scope="module")
def page(root) -> str:
    """The full page."""
    spec = {"study": {"teachers": list(made.TEACHERS), "seeds": [0, 1]}, "benchmarks": made.MEMBERS, "split": "test"}
    inputs = ["--summary", str(root / "results/tables/summary.parquet"), "--out", str(root / "results/report/index.html")]
    for name in ("scenes", "runs", "predictions", "features"):
        inputs += [f"--{name}", *files(root, name)]
    assert command.main(["report", "--spec", json.dumps(spec), *inputs]) == 0
    return (root / "results/report/index.html").read_text(encoding="utf-8")


def test_page_holds_every_part_and_nothing_from_outside(page):
    for title in ("What was run", "Results on rooms, recipe 3drs", "Training", "Example scenes", "What the teachers see"):
        assert f">{title}</h2>" in page
    assert "Left out" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert page.count("<img ") == page.count('src="data:image/png;base64,') == 8
    assert not re.search(r"\$\w+", re.sub(r"base64,[^\"]+", "", page))


def test_table_of_the_page_equals_the_summary(page, root):
    from pipeline.tables.schema import read_table

    rows, _ = read_table(root / "results/tables/summary.parquet", made_by="x")
    for row in rows:
        if row["headline"] and row["task"] == "qa":
            assert f"{row['value']:.1f} <small>" in page


def test_examples_show_answers_and_escape_them(page):
    assert "What stands in the middle?" in page
    assert '<span class="right">✓ chair</span>' in page
    assert "table &amp; &lt;b&gt;lamp&lt;/b&gt;" in page
    assert "<b>lamp" not in page
    assert "middle &lt;of&gt; the room" in page
    assert re.search(r"✓ IoU\xa00\.8\d", page)


def test_notes_on_the_data_are_shown_and_escaped(page, root, tmp_path):
    assert ">Data: what was left out or is doubtful</h2>" in page
    assert "Nothing was left out of <code>rooms</code>" in page
    manifest = root / "results/scenes/rooms/manifest.json"
    (tmp_path / "manifest.json").write_bytes(manifest.read_bytes())
    notes = [
        Note("unknown_labels", "names are not in the label table: <b>`lamp`</b>", 2),
        Note("frames", "frames: **left out**", 3, out_of=9, scenes=("room1",)),
    ]
    add_notes(tmp_path / "manifest.json", notes)
    given = ["--summary", str(root / "results/tables/summary.parquet"), "--scenes", str(tmp_path / "manifest.json")]
    assert command.main(["report", *given, "--out", str(tmp_path / "index.html")]) == 0
    section = (tmp_path / "index.html").read_text(encoding="utf-8").split('<h2 id="data">')[1].split("<h2 ")[0]
    assert "<td>2 names are not in the label table: &lt;b&gt;`lamp`&lt;/b&gt;</td>" in section
    assert "<td>3 of 9 frames: **left out** (room1)</td>" in section


@pytest.mark.usefixtures("page")
def test_figures_are_written_as_files_too(root):
    names = sorted(path.name for path in (root / "results/report/figures").glob("*.png"))
    assert names == [
        "correspondence_rooms_3drs.png",
        "differences_rooms_3drs.png",
        "features_rooms.png",
        "quarters_rooms_3drs.png",
        "scene_rooms_room1.png",
        "scene_rooms_room2.png",
        "scene_rooms_room3.png",
        "training_rooms_3drs.png",
    ]


def test_the_same_inputs_give_the_same_page_and_missing_ones_a_sentence(root, tmp_path):
    for name in ("a", "b"):
        given = ["--summary", str(root / "results/tables/summary.parquet"), "--out", str(tmp_path / name / "index.html")]
        assert command.main(["report", *given]) == 0
    text = (tmp_path / "a/index.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b/index.html").read_text(encoding="utf-8")
    assert text.count("Left out: ") == 3


def test_paths_that_name_no_run_are_refused():
    run = run_path(Path("results/runs/rooms/internvl_tiny/none/3drs/seed12/manifest.json"))
    assert (run.dataset, run.backbone, run.teacher, run.recipe, run.seed) == ("rooms", "internvl_tiny", "none", "3drs", 12)
    with pytest.raises(DataError, match="does not name a run"):
        run_path(Path("results/runs/rooms/manifest.json"))
    with pytest.raises(DataError, match="does not name a feature store"):
        feature_paths([Path("manifest.json")])


def test_curves_leave_out_what_is_not_comparable_and_a_cut_line(root):
    runs = [run_path(Path(path)) for path in files(root, "runs") if Path(path).with_name("metrics.jsonl").exists()]
    curves = training_curves(runs)
    assert set(curves["internvl_tiny", "geometry", 0]) == {"alignment", "scanqa", "scanrefer"}
    assert set(curves["internvl_tiny", "none", 0]) == {"scanqa", "scanrefer"}
    steps, values = curves["internvl_tiny", "none", 0]["scanrefer"]
    assert steps[:3] == [1.0, 3.0, 5.0]
    assert len(values) == 100


def test_curves_of_damaged_metrics_are_left_out(root, tmp_path, capsys):
    """One flipped bit was another curve, or a traceback."""
    source = next(Path(path) for path in files(root, "runs") if Path(path).with_name("metrics.jsonl").exists())
    folder = tmp_path / Path(*source.parts[-6:-1])
    shutil.copytree(source.parent, folder)
    metrics, runs = folder / "metrics.jsonl", [run_path(folder / "manifest.json")]
    (folder / "run.json").write_text(json.dumps({"files": {metrics.name: file_digest(metrics)}}))
    assert training_curves(runs)
    metrics.write_bytes(metrics.read_bytes().replace(b"loss", b"l\xefss", 1))
    assert not training_curves(runs)
    assert "its curves are left out" in capsys.readouterr().err
    (folder / "run.json").unlink()
    assert training_curves(runs)


def test_example_scenes_do_not_depend_on_results(root):
    index = SceneIndex(root / "results/scenes/rooms/manifest.json")
    runs = [run_path(Path(path)) for path in files(root, "predictions")]
    scenes = example_scenes(index, runs, made.MEMBERS, "test", count=2)
    assert [scene.scene_id for scene in scenes] == ["room1", "room3"]
    assert [question.benchmark for question in scenes[0].questions] == ["scanrefer", "scanqa"]
    assert list(scenes[0].questions[0].said) == sorted(made.TEACHERS)
    assert example_scenes(index, [], made.MEMBERS, "test") == []


def test_a_box_before_the_camera_projects_into_the_image(root):
    record = SceneIndex(root / "results/scenes/rooms/manifest.json").split("test")[0]
    box = record.objects[0].box
    corners = box_corners(box)
    assert corners.min(0) == pytest.approx(np.asarray(box[:3]) - np.asarray(box[3:]) / 2)
    assert corners.max(0) == pytest.approx(np.asarray(box[:3]) + np.asarray(box[3:]) / 2)
    pixels, depth = project(np.asarray([box[:3]]), record, 0)
    assert depth[0] == pytest.approx(2.0)
    assert pixels[0] == pytest.approx(record.intrinsics[:2, 2])
    assert best_view(record, [box]) == 0
    assert best_view(record, []) == 0


def test_principal_colors_are_one_scale_for_all_views_and_stable():
    tokens = np.random.default_rng(0).normal(size=(3, 4, 5, 12)).astype(np.float32)
    tokens[2] = tokens[0]
    colors = principal_colors(tokens)
    assert colors.shape == (3, 4, 5, 3)
    assert (colors.min(), colors.max()) == (0.0, 1.0)
    assert np.array_equal(colors[2], colors[0])
    assert not np.allclose(colors[1], colors[0])
    assert principal_colors(tokens[..., :2]).shape == (3, 4, 5, 3)
    assert np.isfinite(principal_colors(np.ones((2, 2, 2, 4), np.float32))).all()


def test_smoothing_keeps_ends_and_means():
    values = np.arange(100, dtype=np.float64)
    assert np.allclose(smooth(values)[10:90], values[10:90])
    assert np.array_equal(smooth(np.asarray([1.0, 5.0])), [1.0, 5.0])


def test_the_baseline_is_grey_and_teachers_differ():
    colors = teacher_colors(["geometry", "none", "shuffled"])
    assert colors["none"] == "#6B7280"
    assert len(set(colors.values())) == 3


def test_two_runs_have_a_dash_and_no_nan_as_their_correlation(monkeypatch):
    from matplotlib.axes import Axes

    texts, write = [], Axes.text

    def noted(axis, x, y, text, *rest, **style):
        texts.append(text)
        return write(axis, x, y, text, *rest, **style)

    monkeypatch.setattr(Axes, "text", noted)
    nothing = Estimate(float("nan"), None, None, 2)
    points = (("b", "none", 0, 0.993, 7.1), ("b", "geometry", 0, 0.994, 7.1))
    scatter([Association("rooms", "3drs", "b", "", nothing, nothing, points)], ["none", "geometry"])
    assert texts == ["Spearman –"]


def test_inline_marks_are_escaped_first():
    assert inline("`a<b` **c**") == "<code>a&lt;b</code> <strong>c</strong>"
