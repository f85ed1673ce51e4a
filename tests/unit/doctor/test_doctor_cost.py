"""What a study will cost: bytes as the store writes them, work against counted figures, nothing where nothing is needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doctor_studies import built_in, lab, write_config

from pipeline.__main__ import main
from pipeline.backbones.base import ModelSize
from pipeline.doctor import flops
from pipeline.doctor.examine import examine
from pipeline.doctor.report import FeatureCost, Report
from pipeline.doctor.text import render
from pipeline.study.config import StudyConfig
from pipeline.study.recipe import Recipe
from pipeline.study.specs import Specs
from pipeline.teachers.vggt.config import RELEASED_1B
from pipeline.teachers.vggt.flops import forward_flops

Prepared = Callable[[StudyConfig], Path]
pytestmark = pytest.mark.usefixtures("project")
VIDEO_7B = ModelSize(language=7_620_000_000, vision=400_000_000, layers=28, width=3584, tokens=210, patches=729)
"""LLaVA-Video-7B with its newline tokens: 14 x 15 a view."""


def report_of(content: dict[str, Any]) -> Report:
    return examine(write_config(content), [Path("study.yaml")], 125.0)


@pytest.mark.parametrize("views", [8, 16, 32])
def test_a_teachers_work_is_near_what_is_counted(views: int) -> None:
    counted = forward_flops(RELEASED_1B, views, 28, 37)["total"]
    estimated = flops.teacher(1_257_000_000, 2048, views, 28 * 37, together=True)
    assert 0.9 < estimated / counted < 1.5


def test_views_by_themselves_cost_less_than_together() -> None:
    alone, together = (flops.teacher(10**9, 1024, 32, 1000, together=flag) for flag in (False, True))
    assert alone < together
    assert flops.teacher(10**9, 1024, 64, 1000, together=False) == pytest.approx(2 * alone)


def test_fine_tuning_is_near_what_is_reported() -> None:
    """13,946 steps of 16 single questions took about 32 h on 8 A100 (flops.py has the source)."""
    recipe = Recipe(scenes_per_step=16, questions_per_scene=1, gradient_checkpointing=True, vision_learning_rate=2e-6)
    hours = flops.hours(13_946 * flops.training_step(VIDEO_7B, 32, recipe), 125)
    assert 0.7 < hours / (32 * 8) < 1.4


def test_a_shared_prefix_and_a_frozen_tower_save_work() -> None:
    one = Recipe(scenes_per_step=16, questions_per_scene=1)
    many = Recipe(scenes_per_step=1, questions_per_scene=16)
    assert flops.training_step(VIDEO_7B, 32, many) < flops.training_step(VIDEO_7B, 32, one) / 8
    tower = flops.vision(VIDEO_7B, 32)
    trained = Recipe(scenes_per_step=16, questions_per_scene=1, vision_learning_rate=1e-6)
    extra = flops.training_step(VIDEO_7B, 32, trained) - flops.training_step(VIDEO_7B, 32, one)
    assert extra == pytest.approx(16 * 2 * tower)


def test_the_built_in_study_needs_no_gpu() -> None:
    cost = report_of(built_in()).cost
    assert cost.gpu_hours == 0
    assert cost.unknown == ()
    assert cost.runs == 1 * 1 * 2 * 1 * 2
    assert [row.teacher for row in cost.features] == ["geometry"], "the control stores nothing"
    assert all(run.gpu_hours == 0 for run in cost.backbones)


def stored(content: dict[str, Any], prepared: Prepared) -> tuple[FeatureCost, dict[str, Any], Report]:
    """Extract the built-in teacher for real: its estimate, its manifest, the whole report."""
    config = write_config(content)
    folder = prepared(config)
    Path("spec.json").write_text(Specs(config).extract("tiny_rooms", "geometry", "shard0"))
    out = Path("results/features/tiny_rooms/geometry/shard0/manifest.json")
    assert main(["extract", "--spec", "@spec.json", "--scenes", str(folder / "manifest.json"), "--out", str(out)]) == 0
    report = report_of(content)
    return report.cost.features[0], json.loads(out.read_text()), report


@pytest.mark.parametrize(
    "features", [{}, {"dtype": "float32"}, {"dtype": "int8"}, {"grid": {"rows": 3, "cols": 4}}, {"splits": ["train", "val"]}]
)
def test_bytes_equal_what_the_store_writes(features: dict[str, Any], prepared: Prepared) -> None:
    """Confidence and the array's descriptions (about 2 kB a scene) are not in the estimate."""
    row, manifest, report = stored(built_in(features=features | {"compression": "none"}), prepared)
    assert row.stored_bytes == manifest["counts"]["bytes"]
    assert row.views == manifest["counts"]["views"]
    assert row.bytes is not None
    confidence = 4 * manifest["counts"]["tokens"]
    rest = row.stored_bytes - row.bytes - confidence
    assert 0 <= rest < 4000 * manifest["counts"]["scenes"]
    assert report.cost.disk_bytes == 0, "what is stored already needs no more disk"


def test_bytes_of_a_packed_store_are_an_upper_bound(prepared: Prepared) -> None:
    content = built_in(features={"dtype": "float32", "compression": "lossless"})
    before = report_of(content).cost
    assert before.disk_bytes == before.features[0].bytes
    row, _, report = stored(content, prepared)
    files = Path("results/features/tiny_rooms/geometry/shard0/features.zarr/tokens").glob("*/c.*")
    assert 0 < sum(file.stat().st_size for file in files) < (row.bytes or 0)
    assert (row.packed, row.bytes_to_come, report.cost.disk_bytes) == (True, 0, 0)
    text = " ".join(render(report).split())
    assert "at most" in text
    assert "before packing, an upper bound" in text
    assert "at most" not in render(report_of(built_in(features={"compression": "none"})))


def test_a_laboratory_study_has_hours_disk_and_memory() -> None:
    cost = report_of(lab()).cost
    (run,) = cost.backbones
    assert run.parameters == 3_754_622_976
    assert run.bytes == 2 * run.parameters * 4
    assert run.memory_bytes == (4 * 3_085_938_688 + 668_684_288) * 4
    assert run.gpu_hours is not None
    assert cost.gpu_hours == pytest.approx(run.gpu_hours + (cost.features[0].gpu_hours or 0))
    assert run.load_bytes == cost.load_bytes == 4 * run.parameters
    twice = examine(write_config(lab()), [], 250.0).cost
    assert twice.gpu_hours == pytest.approx(cost.gpu_hours / 2)
    assert any("125 TFLOP/s" in line for line in cost.assumptions)


@pytest.mark.usefixtures("fake_teacher")
def test_faulty_weights_count_with_their_published_size() -> None:
    Path("weights.pt").write_bytes(b"faulty")
    fake = {"kind": "fake_released", "files": ["weights.pt"], "size": 5_000_000_000}
    cost = report_of(lab(teachers={"fake": fake})).cost
    assert cost.features[0].gpu_hours == pytest.approx(
        flops.hours(562 * flops.teacher(1_250_000_000, 2048, 32, 28 * 37, together=True), 125)
    )
    assert cost.load_bytes == 4 * 3_754_622_976


def test_finished_runs_need_no_more_disk() -> None:
    before = report_of(lab()).cost
    Path("results/runs/rooms/qwen_3b/none/3drs/seed0").mkdir(parents=True)
    Path("results/runs/rooms/qwen_3b/none/3drs/seed0/manifest.json").write_text("{}")
    after = report_of(lab()).cost
    assert (before.backbones[0].finished, after.backbones[0].finished) == (0, 1)
    assert before.disk_bytes - after.disk_bytes == 4 * 3_754_622_976


@pytest.mark.usefixtures("fake_teacher")
def test_a_model_of_another_package_has_work_of_unknown_size() -> None:
    report = report_of(built_in(teachers={"theirs": {"kind": "fake_released"}}, study={"seeds": [0]}))
    assert report.cost.unknown == ("features of theirs on tiny_rooms",)
    assert report.cost.features[0].bytes == 24 * 28 * 37 * 2048 * 2
    assert report.teachers[1].origin == "weights that its own package brings"


def test_what_is_not_known_is_said() -> None:
    content = lab(
        backbones={"lab": {"kind": "internvl", "checkpoint": "weights/my_own"}},
        teachers={"dino": {"kind": "dinov2", "checkpoint": "weights/my_dino"}},
    )
    report = report_of(content)
    assert set(report.cost.unknown) == {"features of dino on rooms", "runs of lab"}
    assert report.cost.backbones[0].gpu_hours is None
    (dino,) = [row for row in report.teachers if row.name == "dino"]
    assert dino.dim is None
    assert sum("my_dino" in need.where for need in report.missing) == 1, "one line for one missing thing"


def test_a_recipe_of_epochs_is_known_once_data_is_prepared(prepared: Prepared) -> None:
    recipe = {"steps": None, "epochs": 1, "questions_per_scene": 1, "scenes_per_step": 2}
    backbones = {"lab": {"kind": "internvl", "checkpoint": "weights/InternVL3-1B-hf"}}
    content = built_in(recipes={"one_epoch": recipe}, backbones=backbones)
    assert report_of(content).cost.unknown == ("runs of lab",)
    prepared(write_config(content))
    cost = report_of(content).cost
    assert cost.unknown == ()
    assert 0 < cost.gpu_hours < 1
    assert cost.predictions is not None


def test_one_epoch_of_the_published_samples_is_the_papers_number_of_steps() -> None:
    """223,128 samples, 16 a step: 13,946 steps (3DRS, appendix A.2)."""
    recipe = {"steps": None, "epochs": 1, "questions_per_scene": 1, "scenes_per_step": 16, "gradient_checkpointing": True}
    content = lab(
        datasets={"scannet": {"scenes": "annotated"}},
        recipes={"epoch": recipe, "steps": recipe | {"steps": 13_946, "epochs": None}},
        evaluation={"split": "val"},
        study={"seeds": [0], "recipes": ["epoch"]},
    )
    epoch = report_of(content).cost
    assert epoch.unknown == ()
    content["study"]["recipes"] = ["steps"]
    assert epoch.gpu_hours == pytest.approx(report_of(content).cost.gpu_hours)


@pytest.mark.parametrize(
    ("benchmark", "wanted"), [({}, True), ({"meteor": False}, False), ({"meteor": False, "ptb": True}, True)]
)
def test_java_is_wanted_for_meteor_and_for_the_ptb_tokenizer(
    benchmark: dict[str, Any], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("pipeline.doctor.examine.examine_environment", lambda w, _: asked.append(w) or ((), ()))
    report_of(built_in(benchmarks={"scanqa": benchmark}, recipes={"qa": {"steps": 5, "train_on": ["scanqa"]}}))
    assert asked[0].java is wanted
    assert asked[0].open3d is True, "the rooms are still to be drawn"


def test_rooms_of_3d_front_are_drawn_with_open3d(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("pipeline.doctor.examine.examine_environment", lambda w, _: asked.append(w) or ((), ()))
    content = lab(datasets={"front3d": {}})
    assert report_of(content).datasets[0].state == "not prepared"
    assert asked[0].open3d is True


def test_a_full_disk_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free space is made up for this test."""
    usage = type(shutil.disk_usage("."))(total=10**12, used=10**12 - 10**9, free=10**9)
    monkeypatch.setattr("pipeline.doctor.cost.shutil.disk_usage", lambda _: usage)
    needs = [need for need in report_of(lab()).missing if need.area == "cost"]
    assert len(needs) == 1
    assert "GB of disk" in needs[0].what
    assert not [need for need in report_of(built_in()).missing if need.area == "cost"]
