"""The user's commands on scans in ScanNet's released formats: one cell from .sens streams to its table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest
import scannet_files as made
import yaml
from workflow_project import SMOKE, Project

from pipeline.features.store import FeatureReader
from pipeline.metrics.scorefile import read_scores
from pipeline.scenes.index import SceneIndex

TABLE = "results/tables/cells/scannet/qwen2_5_vl_tiny.parquet"
BENCHMARKS = ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d", "correspondence")


def study(project: Project, **dataset: object) -> tuple[str, ...]:
    """Configuration files of a study of the small release with a tiny teacher and a tiny backbone."""
    content = {
        "datasets": {"scannet": {"frame_step": made.STEP, "frames": {"count": 4}, **dataset}},
        "evaluation": {"split": "val"},
        "study": {"datasets": ["scannet"], "teachers": ["none", "geometry"], "backbones": ["qwen2_5_vl_tiny"]},
    }
    (project.folder / "tiny_scannet.yaml").write_text(yaml.safe_dump(content))
    return (*SMOKE, "tiny_scannet.yaml")


def test_real_data_asks_for_more_than_rooms(untouched: Project) -> None:
    files = ("results/scenes/scannet/manifest.json", "results/scenes/rooms/manifest.json")
    text = untouched.snakemake(*files, "-n", "-p", "--cores", "8", "--configfile", *study(untouched))
    assert text.count("--threads 8 --gpus 0 --out results/scenes/scannet") == 1
    assert text.count("--threads 1 --gpus 0 --out results/scenes/rooms") == 1


@pytest.mark.slow
def test_one_cell_from_streams_to_its_table(finished_copy: Callable[[], Project]) -> None:
    project = finished_copy()  # its backbone has learned to see already
    made.write_release(project.folder / "data/scannet")
    files = study(project)
    doctor = project.run("python", "-m", "pipeline", "doctor", *files)
    assert "everything the study needs is there" in doctor.stdout
    project.snakemake(TABLE, "--cores", "2", "--configfile", *files)

    rows = pq.read_table(project.folder / TABLE).to_pylist()
    headline = {(r["teacher"], r["benchmark"]) for r in rows if r["headline"] and r["row_type"] == "measured" and r["n"] > 0}
    assert headline == {(teacher, benchmark) for teacher in ("none", "geometry") for benchmark in BENCHMARKS}

    results = project.folder / "results"
    index = SceneIndex(results / "scenes/scannet/manifest.json")
    features = FeatureReader([results / "features/scannet/geometry/shard0/manifest.json"])
    for record in index.split("train"):
        assert record.frame_ids == features.frame_ids(record.scene_id) == ("00000", "00002", "00006", "00010")
    for teacher in ("none", "geometry"):
        run = f"scannet/qwen2_5_vl_tiny/{teacher}/3drs/seed0"
        for stage, split in (("runs", "train"), ("predictions", "val")):
            assert json.loads((results / stage / run / "manifest.json").read_text())["scenes"] == index.content_digest(split)
        for benchmark in BENCHMARKS:
            metadata = read_scores(results / f"scores/{run}/{benchmark}.parquet").metadata
            assert metadata["scenes"] == index.content_digest("val")
    another_validation_question(project, files)


def another_validation_question(project: Project, files: tuple[str, ...]) -> None:
    """After the documented `--forcerun prepare` nothing is trained again, neither runs nor backbones: none of them read it."""
    (path,) = (project.folder / "data/scannet").rglob("ScanQA_v1.0_val.json")
    entries = json.loads(path.read_text())
    entries[0]["question"] = "please tell me: " + entries[0]["question"]
    path.write_text(json.dumps(entries))
    before = project.files()
    text = project.snakemake(TABLE, "--cores", "2", "--forcerun", "prepare", "--configfile", *files)
    after = project.files()
    assert "train" in text
    for name in before:
        if name.startswith(("results/runs/", "results/backbones/")):
            assert after[name][1] == before[name][1], name
            assert after[name][0] == before[name][0] or name.endswith("manifest.json"), name
    assert {
        tuple(json.loads((project.folder / name).read_text())["answered"])
        for name in after
        if "predictions/" in name and name.endswith("run.json") and "/scannet/" in name
    } == {("scanqa",)}


@pytest.mark.slow
def test_a_broken_scan_ends_with_its_message(fresh: Project) -> None:
    made.write_release(fresh.folder / "data/scannet")
    scan = "scene0011_00"
    path = fresh.folder / f"data/scannet/scans/{scan}/{scan}.sens"
    path.write_bytes(path.read_bytes()[:-1000])
    done = fresh.run("snakemake", TABLE, "--cores", "2", "--configfile", *study(fresh), check=False)
    assert done.returncode == 1
    assert f"scan {scan}: the .sens stream ends inside" in done.stdout[-3000:]
    assert "Traceback" not in done.stdout
    shutil.rmtree(path.parent)
    text = fresh.snakemake(
        "results/scenes/scannet/manifest.json", "--cores", "2", "--configfile", *study(fresh, skip_broken=True)
    )
    assert "1 of 1 steps" in text
    warning = "warning: scannet: 1 of 3 scans left out, their files are missing or damaged; the first: "
    assert text.count(warning) == 2, "at the end of the job and of the run"
    log = (fresh.folder / "results/logs/prepare/scannet.log").read_text()
    assert f"1 broken scans left out ({scan}" in log
