"""The whole study on a small configuration, and what makes its cells run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from workflow_project import NOTHING, SMOKE, Project

pytestmark = pytest.mark.slow

BACKBONES = ("qwen2_5_vl_tiny", "llava_onevision_tiny", "internvl_tiny")
TEACHERS = ("none", "geometry", "vggt_rooms", "shuffled")
BENCHMARKS = ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d", "correspondence")
CHAIN = ("train", "predict", "score")


def _cells_of(*teachers: str) -> set[tuple[str, str]]:
    """Jobs behind the features of these teachers, up to the report."""
    runs = {(command, f"rooms x {b} x {t} x 3drs, seed 0") for command in CHAIN for b in BACKBONES for t in teachers}
    tables = {("cell", f"rooms x {b}") for b in BACKBONES} | {("summary", "all cells"), ("report", "results/report/index.html")}
    return {("extract", f"rooms x {t}, shard0") for t in teachers} | runs | tables


def test_the_table_is_complete(finished: Project) -> None:
    table = pq.read_table(finished.folder / "results/tables/summary.parquet").to_pylist()
    headline = [row for row in table if row["headline"] and row["row_type"] == "measured" and row["subset"] == "all"]
    cells = {(row["backbone"], row["teacher"], row["benchmark"]) for row in headline}
    assert cells == {(b, t, m) for b in BACKBONES for t in TEACHERS for m in BENCHMARKS}
    assert all(row["n"] > 0 and row["seeds"] == [0] and row["run_digests"] for row in headline)
    assert all((row["diff_to_none"] is None) == (row["teacher"] == "none") for row in headline if row["value"] is not None)


def test_every_promised_file_is_there(finished: Project) -> None:
    results = finished.folder / "results"
    for backbone in BACKBONES:
        assert (results / f"tables/cells/rooms/{backbone}.parquet").is_file()
        for teacher in TEACHERS:
            run = f"rooms/{backbone}/{teacher}/3drs/seed0"
            assert json.loads((results / "runs" / run / "manifest.json").read_text())
            assert (results / "logs/train" / f"{run}.log").stat().st_size > 0
            for benchmark in BENCHMARKS:
                assert pq.read_metadata(results / "predictions" / run / f"{benchmark}.parquet").num_rows > 0
                assert pq.read_metadata(results / "scores" / run / f"{benchmark}.parquet").num_rows > 0
    assert "rooms" in (results / "tables/summary.md").read_text(encoding="utf-8")
    assert "</html>" in (results / "report/index.html").read_text(encoding="utf-8")


def test_a_second_run_has_nothing_to_do(finished: Project) -> None:
    assert NOTHING in finished.snakemake("--cores", "2", "--configfile", *SMOKE)


def test_a_comment_reruns_nothing(finished_copy: Callable[[], Project]) -> None:
    project = finished_copy()
    for file in ("config.yaml", "workflow/studies/smoke.yaml", "Snakefile", "workflow/rules/training.smk"):
        path = project.folder / file
        path.write_text(path.read_text(encoding="utf-8") + "\n# a remark\n", encoding="utf-8")
    for path in (project.folder / "pipeline").rglob("*.py"):
        path.write_text("# a remark\n" + path.read_text(encoding="utf-8") + "\n# another\n", encoding="utf-8")
    assert project.planned("--configfile", *SMOKE) == set()


def test_an_option_of_a_teacher_reruns_its_cells_only(finished: Project) -> None:
    options = json.dumps({"geometry": {"bands": 3}})
    assert finished.planned("--configfile", *SMOKE, "--config", f"teachers={options}") == _cells_of("geometry")


def test_pretraining_of_a_teacher_reruns_what_stands_on_it(finished: Project) -> None:
    options = json.dumps({"vggt_rooms": {"pretrain": {"steps": 4}}})
    jobs = finished.planned("--configfile", *SMOKE, "--config", f"teachers={options}")
    assert jobs == _cells_of("vggt_rooms", "shuffled") | {("pretrain_teacher", "vggt_rooms")}


def test_behaviour_of_a_teacher_reruns_its_cells_only(finished_copy: Callable[[], Project]) -> None:
    project = finished_copy()
    path = project.folder / "pipeline/teachers/geometry.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n_OTHER_BEHAVIOUR = 1\n", encoding="utf-8")
    assert project.planned("--configfile", *SMOKE) == _cells_of("geometry")


def test_a_new_seed_adds_its_runs_only(finished: Project) -> None:
    jobs = finished.planned("--configfile", *SMOKE, "--config", 'study={"seeds":[0,1]}')
    runs = {job for job in jobs if job[0] in CHAIN}
    assert runs == {(v, f"rooms x {b} x {t} x 3drs, seed 1") for v in CHAIN for b in BACKBONES for t in TEACHERS}
    assert {command for command, _ in jobs - runs} == {"cell", "summary", "report"}


def test_one_cell_again_touches_nothing_else(finished_copy: Callable[[], Project]) -> None:
    project = finished_copy()
    target = "results/tables/cells/rooms/internvl_tiny.parquet"
    again = (target, "--configfile", *SMOKE, "--forcerun")
    whole = {(command, f"rooms x internvl_tiny x {t} x 3drs, seed 0") for command in CHAIN for t in TEACHERS}
    assert project.planned(*again, "train") == whole | {("cell", "rooms x internvl_tiny")}

    before = project.files()
    project.snakemake(*again, "score", "--cores", "2")
    after = project.files()
    assert before.keys() == after.keys()
    touched = {name for name in after if after[name][0] != before[name][0]}
    parts = {str(Path(name).relative_to("results")).split("/rooms/")[0] for name in touched}
    assert parts == {"scores", "tables/cells"}
    assert all("/internvl_tiny" in name for name in touched)
    assert {after[n][1] for n in touched if n.endswith(".parquet")} == {before[n][1] for n in touched if n.endswith(".parquet")}


def test_a_fault_of_the_data_ends_with_its_message(finished_copy: Callable[[], Project]) -> None:
    project = finished_copy()
    frames = sorted((project.folder / "results/scenes/rooms/posed_images").glob("*/*.png"))
    for frame in frames:
        frame.write_bytes(frame.read_bytes()[:100])
    before = project.files("results/runs")
    done = project.run(
        *("snakemake", "results/features/rooms/geometry/shard0/manifest.json", "--cores", "2"),
        *("--configfile", *SMOKE, "--config", 'teachers={"geometry":{"bands":3}}'),
        check=False,
    )
    assert done.returncode == 1
    last = done.stdout[-3000:]
    assert "FrameError" in last
    assert any(str(frame.relative_to(project.folder)) in last for frame in frames)
    assert "Traceback" not in done.stdout
    assert project.files("results/runs") == before
