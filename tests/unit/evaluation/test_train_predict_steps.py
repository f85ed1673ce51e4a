"""The commands train and predict on prepared rooms: files, resuming, keeping finished work, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from manifest_files import change_manifest
from PIL import Image
from safetensors.torch import load_file
from training_helpers import member

from pipeline.__main__ import main
from pipeline.backbones._transformers.prompts import INSTRUCTION, target_text, user_text
from pipeline.benchmarks.multi3drefer import STEPS
from pipeline.core import registry
from pipeline.core.finished import digests_of
from pipeline.core.options import validate
from pipeline.core.provenance import read_manifest, write_manifest
from pipeline.evaluation.records import SCHEMA, finished_digest
from pipeline.features.store import FeatureWriter, StoreSpec
from pipeline.scenes.grid import IMAGE, Window
from pipeline.scenes.index import SceneIndex, scene_checksum
from pipeline.study.recipe import Recipe

KIND = "internvl"
TASKS = ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d")
RECIPE = {"steps": 2, "scenes_per_step": 2, "questions_per_scene": 5}


def task_members() -> dict[str, dict]:
    def one(name: str) -> dict:
        options = validate(registry.member_class("benchmarks", name).options_model, {}, where=name)
        return {"name": name, "kind": name, "options": options.model_dump(mode="json")}

    return {name: one(name) for name in (*TASKS, "correspondence")}


def train_spec(**recipe: Any) -> dict[str, Any]:
    tasks = {name: found for name, found in task_members().items() if name in TASKS}
    options = Recipe(**{**RECIPE, **recipe}).model_dump(mode="json")
    common = {"dataset": "tiny_rooms", "teacher": "none", "seed": 0, "benchmarks": tasks, "code": ""}
    return {**common, "backbone": member(KIND), "recipe": options}


def predict_spec(**changes: Any) -> dict[str, Any]:
    spec = train_spec()
    return {"backbone": spec["backbone"], "recipe": spec["recipe"], "benchmarks": task_members(), "split": "test", **changes}


@pytest.fixture(scope="session")
def pretrained(tiny_rooms: SceneIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of an untrained tiny backbone with a tokenizer of the rooms' texts."""
    folder = tmp_path_factory.mktemp("backbone")
    made = registry.create("backbones", member(KIND))
    found = [s for t in task_members().values() for s in registry.create("benchmarks", t).training_samples(tiny_rooms)]
    made.train_tokenizer([INSTRUCTION, *(user_text(s) for s in found), *(target_text(s) for s in found)], folder)
    made.build(folder, seed=0, device="cpu").save(folder)
    content = {"backbone": made.name, "member": member(KIND), "files": digests_of(folder)}
    write_manifest(folder / "manifest.json", content)
    return folder / "manifest.json"


@pytest.fixture(scope="session")
def run_command(tiny_rooms: SceneIndex, pretrained: Path) -> Callable[..., int]:
    """Run train or predict in process; the exit code."""

    def run(command: str, out: Path, spec: dict[str, Any], *more: object) -> int:
        threads = torch.get_num_threads()
        arguments = [command, "--spec", json.dumps(spec), "--scenes", tiny_rooms.path, "--out", out, *more]
        if command == "train" and "--weights" not in more:
            arguments += ["--weights", pretrained]
        try:
            return main([str(a) for a in arguments])
        finally:
            torch.set_num_threads(threads)

    return run


@pytest.fixture(scope="session")
def trained(run_command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "manifest.json"
    assert run_command("train", out, train_spec()) == 0
    return out


@pytest.fixture(scope="session")
def predicted(trained: Path, run_command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predictions") / "manifest.json"
    assert run_command("predict", out, predict_spec(), "--run", trained) == 0
    return out


def test_train_writes_a_loadable_model_and_a_deterministic_manifest(
    trained: Path, run_command: Callable[..., int], tmp_path: Path
) -> None:
    manifest = json.loads(trained.read_text())
    assert set(manifest["final"]) == {"loss", *TASKS}
    assert manifest["steps"] == 2
    assert {"model.safetensors", "heads.safetensors", "config.json", "tokenizer.json"} <= set(manifest["files"])
    assert not {"run.json", "metrics.jsonl", "manifest.json", "finished.json"} & set(manifest["files"])
    assert len((trained.parent / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (trained.parent / "checkpoints").exists()
    assert "_attn_implementation" not in (trained.parent / "config.json").read_text()
    assert json.loads((trained.parent / "run.json").read_text())["command"] == "train"
    assert run_command("train", tmp_path / "manifest.json", train_spec()) == 0
    assert (tmp_path / "manifest.json").read_bytes() == trained.read_bytes()


def test_predictions_are_one_row_per_sample_in_order(predicted: Path, tiny_rooms: SceneIndex) -> None:
    manifest = json.loads(predicted.read_text())
    for name, found in task_members().items():
        benchmark = registry.create("benchmarks", found)
        expected = benchmark.samples(tiny_rooms, "test")
        table = pq.ParquetFile(predicted.with_name(f"{name}.parquet")).read()
        assert table.schema.equals(SCHEMA)
        assert table["sample_id"].to_pylist() == [s.sample_id for s in expected]
        assert manifest["samples"][name] == len(expected) > 0
        prompts = [user_text(s) for s in expected]
        gated = [s.task == "caption" and s.input_box is None for s in expected]
        asked = [p if s.task != "representation" and not g else "" for p, s, g in zip(prompts, expected, gated, strict=True)]
        assert table["prompt"].to_pylist() == asked
        for row, shut in zip(table.to_pylist(), gated, strict=True):
            if benchmark.task == "grounding":
                candidates = tiny_rooms.records[row["scene_id"]].candidate_boxes()
                assert len(row["probabilities"]) == len(candidates) + 1
            assert not shut or (row["raw_text"], row["answer"]) == ("", "")


def test_score_accepts_the_predictions(predicted: Path, tiny_rooms: SceneIndex, tmp_path: Path) -> None:
    tasks = {n: m for n, m in task_members().items() if n != "scan2cap"}  # METEOR needs a Java runtime
    spec = {"benchmarks": tasks, "split": "test", "bootstrap": {"replicates": 100, "seed": 0}, "code": ""}
    for name in ("scanqa",):
        spec["benchmarks"][name]["options"]["meteor"] = False
    out = [str(tmp_path / f"{name}.parquet") for name in tasks]
    arguments = ["score", "--spec", json.dumps(spec), "--scenes", str(tiny_rooms.path), "--predictions", str(predicted)]
    assert main([*arguments, "--out", *out]) == 0


def test_captions_of_other_gates_are_refused(
    predicted: Path, tiny_rooms: SceneIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other proposals are other gates and other boxes shown; ids, scenes and frames stay the same."""
    content = read_manifest(tiny_rooms.path, made_by="")
    for scene in content["scenes"]:
        scene["proposals"] = [[9, 9, 9, 1, 1, 1]]
    content["annotations"] = {
        name: {split: [str(tiny_rooms.folder / file) for file in files] for split, files in splits.items()}
        for name, splits in content["annotations"].items()
    }
    write_manifest(tmp_path / "manifest.json", content)
    made = read_manifest(predicted, made_by="") | {"scenes": SceneIndex(tmp_path / "manifest.json").content_digest("test")}
    shutil.copytree(predicted.parent, tmp_path / "predictions")
    predicted = tmp_path / "predictions" / "manifest.json"
    write_manifest(predicted, made)
    spec = {"benchmarks": task_members(), "split": "test", "bootstrap": {"replicates": 100, "seed": 0}, "code": ""}
    arguments = ["score", "--spec", json.dumps(spec), "--scenes", str(tmp_path / "manifest.json")]
    out = tmp_path / "scan2cap.parquet"
    assert main([*arguments, "--predictions", str(predicted), "--out", str(out)]) == 2
    assert "scan2cap asks or expects something else now" in capsys.readouterr().err
    assert not out.exists()


def test_finished_benchmarks_are_kept_and_broken_ones_made_again(
    predicted: Path, trained: Path, run_command: Callable[..., int]
) -> None:
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in predicted.parent.glob("*.parquet")}
    manifest = predicted.read_bytes()
    predicted.unlink()
    scanqa = predicted.with_name("scanqa.parquet")
    scanqa.write_bytes(scanqa.read_bytes()[:100])
    assert finished_digest(scanqa) is None
    assert run_command("predict", predicted, predict_spec(), "--run", trained) == 0
    record = json.loads(predicted.with_name("run.json").read_text())
    assert record["answered"] == ["scanqa"]
    assert predicted.read_bytes() == manifest
    for path in predicted.parent.glob("*.parquet"):
        assert path.read_bytes() == before[path.name][0]
        assert (path.stat().st_mtime_ns == before[path.name][1]) == (path.name != "scanqa.parquet")


def test_another_benchmark_option_answers_only_that_benchmark(
    predicted: Path, trained: Path, run_command: Callable[..., int], tmp_path: Path
) -> None:
    for path in predicted.parent.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spec = predict_spec()
    spec["benchmarks"]["correspondence"]["options"]["voxel_m"] = 0.5
    assert run_command("predict", tmp_path / "manifest.json", spec, "--run", trained) == 0
    assert json.loads((tmp_path / "run.json").read_text())["answered"] == ["correspondence"]


def test_tuning_looks_at_training_scenes_only(
    trained: Path, run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    multi = task_members()["multi3drefer"]
    multi["options"]["tune_scenes"] = 2
    spec = predict_spec(benchmarks={"multi3drefer": multi})
    assert run_command("predict", tmp_path / "manifest.json", spec, "--run", trained) == 0
    values = set(pq.ParquetFile(tmp_path / "multi3drefer.parquet").read()["value"].to_pylist())
    assert len(values) == 1
    assert values <= set(STEPS)
    assert run_command("predict", tmp_path / "again/manifest.json", spec | {"split": "train"}, "--run", trained) == 2
    assert "tuned on the split that is reported" in capsys.readouterr().err


def test_training_with_features_aligns_and_evaluation_needs_none(
    tiny_rooms: SceneIndex, run_command: Callable[..., int], tmp_path: Path
) -> None:
    features = store(tiny_rooms, tmp_path / "features", scenes=6)
    out = tmp_path / "run" / "manifest.json"
    assert run_command("train", out, train_spec() | {"teacher": "random"}, "--features", features) == 0
    assert 0 < json.loads(out.read_text())["final"]["alignment"] < 2
    for path in sorted((tmp_path / "features").glob("**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert run_command("predict", tmp_path / "predictions" / "manifest.json", predict_spec(), "--run", out) == 0


def store(index: SceneIndex, folder: Path, scenes: int, reverse: str = "", window: Window = IMAGE) -> Path:
    """Random features of the first training scenes; those of ``reverse`` under its frames in reverse order."""
    teacher = registry.create("teachers", {"name": "random", "kind": "random", "options": {}})
    teacher.load(None, "cpu")
    records = index.split("train")[:scenes]
    grid = replace(teacher.grid(*records[0].image_size), window=window)
    parts = (("low", 5), ("high", teacher.dim - 5))
    spec = StoreSpec("tiny_rooms", teacher.name, "random", teacher.dim, grid.rows, grid.cols, window, layers=parts)
    with FeatureWriter(folder, spec) as writer:
        for record in records:
            frames = record.frame_ids[::-1] if record.scene_id == reverse else record.frame_ids
            writer.write(record.scene_id, frames, replace(teacher.encode(index.load(record.scene_id)), grid=grid))
        writer.finish()
    return folder / "manifest.json"


def cropped(source: SceneIndex, folder: Path) -> SceneIndex:
    """A copy of the rooms in which the first scene of every split has lower colour images; depth stays."""
    shutil.copytree(source.folder, folder)
    content = read_manifest(folder / "manifest.json", made_by="")
    for split in ("train", "val", "test"):
        scene = next(entry for entry in content["scenes"] if entry["split"] == split)
        scene["image_size"] = [64, 128]
        for frame in scene["frame_ids"]:
            path = folder / "posed_images" / scene["scene_id"] / f"{frame}.jpg"
            with Image.open(path) as image:
                image.crop((0, 0, 128, 64)).save(path)
        scene["checksum"] = scene_checksum(folder / "posed_images" / scene["scene_id"], scene["frame_ids"])
    write_manifest(folder / "manifest.json", content)
    return SceneIndex(folder / "manifest.json")


def test_images_of_two_sizes_from_extract_to_predict(tiny_rooms: SceneIndex, pretrained: Path, tmp_path: Path) -> None:
    """Features on a student's grid; scenes of one shape share a batch, and every sample gets its answer."""
    index = cropped(tiny_rooms, tmp_path / "scenes")
    features, run, predictions = (tmp_path / name / "manifest.json" for name in ("features", "run", "predictions"))
    random = {"name": "random", "kind": "random", "options": {}}
    extract = {"dataset": "tiny_rooms", "teacher": random, "shard": 0, "shards": 1, "splits": ["train"], "code": ""}
    extract["store"] = {"dtype": "bfloat16", "grid": {"rows": 3, "cols": 4}}
    spec = predict_spec(benchmarks={name: found for name, found in task_members().items() if name in ("scanrefer", "sqa3d")})
    for command, out, given, more in (
        ("extract", features, extract, ()),
        ("train", run, train_spec() | {"teacher": "random"}, ("--weights", pretrained, "--features", features)),
        ("predict", predictions, spec, ("--run", run)),
    ):
        arguments = [command, "--spec", json.dumps(given), "--scenes", index.path, "--out", out, *more]
        assert main([str(a) for a in arguments]) == 0
    assert json.loads(run.read_text())["final"]["alignment"] > 0
    rows = pq.read_table(predictions.with_name("scanrefer.parquet")).to_pylist()
    asked = registry.create("benchmarks", task_members()["scanrefer"]).samples(index, "test")
    assert [row["sample_id"] for row in rows] == [sample.sample_id for sample in asked]


def test_scenes_without_features_are_refused(
    tiny_rooms: SceneIndex, run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, spec = store(tiny_rooms, tmp_path / "features", scenes=2), train_spec() | {"teacher": "random"}
    assert run_command("train", tmp_path / "run" / "manifest.json", spec, "--features", features) == 2
    assert "4 training scenes have no features" in capsys.readouterr().err
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_one_part_of_a_store_is_aligned(
    tiny_rooms: SceneIndex, run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, run = store(tiny_rooms, tmp_path / "features", scenes=6), tmp_path / "run" / "manifest.json"
    assert run_command("train", run, train_spec(teacher_layer="lwo") | {"teacher": "random"}, "--features", features) == 2
    assert "did you mean 'low'" in capsys.readouterr().err
    assert run_command("train", run, train_spec(teacher_layer="low") | {"teacher": "random"}, "--features", features) == 0
    heads = load_file(run.parent / "heads.safetensors")
    assert {len(bias) for name, bias in heads.items() if name.startswith("alignment") and name.endswith("2.bias")} == {5}


def test_the_share_of_cells_the_teacher_never_saw_is_said_and_kept(
    trained: Path, tiny_rooms: SceneIndex, run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(trained.read_text())["unseen_cells"] is None, "no teacher"
    shares = []
    for window in (IMAGE, (0.3, 0.0, 0.7, 1.0)):
        features, run = store(tiny_rooms, tmp_path / f"f{window[0]}", 6, window=window), tmp_path / f"{window[0]}/manifest.json"
        assert run_command("train", run, train_spec() | {"teacher": "random"}, "--features", features) == 0
        shares.append(json.loads(run.read_text())["unseen_cells"])
        warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
        assert len(warned) == (shares[-1] > 0)
    assert shares == [0.0, 0.5], "of four columns the outer two are covered by a fifth and nothing"
    assert "50.0% of the visual cells (6 scenes) have weight 0" in warned[0]


def test_features_of_other_frames_are_refused_before_the_first_step(
    tiny_rooms: SceneIndex, run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = store(tiny_rooms, tmp_path / "features", scenes=6, reverse=tiny_rooms.split("train")[4].scene_id)
    run = tmp_path / "run" / "manifest.json"
    assert run_command("train", run, train_spec() | {"teacher": "random"}, "--features", features) == 2
    assert "were made for other frames: first difference at view 0" in capsys.readouterr().err
    assert not (run.parent / "metrics.jsonl").exists()


def test_a_run_of_other_frames_is_refused(
    trained: Path, run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "manifest.json"
    write_manifest(run, read_manifest(trained, made_by="") | {"scenes": "0" * 16})
    assert run_command("predict", tmp_path / "predictions" / "manifest.json", predict_spec(), "--run", run) == 2
    assert "other scenes or other frames" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["heads.safetensors", "model.safetensors"])
def test_incomplete_runs_are_refused(
    missing: str, trained: Path, run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in trained.parent.iterdir():
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "predictions" / "manifest.json"
    assert run_command("predict", out, predict_spec(), "--run", tmp_path / "manifest.json") == 2
    assert "CheckpointError" in capsys.readouterr().err
    assert not out.exists()


def test_missing_inputs_name_the_command_that_makes_them(
    run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "no" / "manifest.json"
    assert run_command("train", tmp_path / "run" / "manifest.json", train_spec(), "--features", absent) == 2
    assert run_command("predict", tmp_path / "p" / "manifest.json", predict_spec(), "--run", absent) == 2
    assert capsys.readouterr().err.count("snakemake --cores all") >= 2


def test_finished_work_of_the_same_inputs_is_kept_and_forced_work_is_done_again(
    trained: Path, predicted: Path, run_command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Snakemake removes a manifest before it starts a job: what is finished comes back without training or predicting."""
    for out, command, spec, more in (
        (trained, "train", train_spec(), []),
        (predicted, "predict", predict_spec(), ["--run", trained]),
    ):
        manifest, record = out.read_bytes(), out.with_name("run.json").stat().st_mtime_ns
        out.unlink()
        assert run_command(command, out, spec, *more) == 0
        assert "finished already" in capsys.readouterr().out
        assert (out.read_bytes(), out.with_name("run.json").stat().st_mtime_ns) == (manifest, record)
        assert run_command(command, out, spec, *more, "--force") == 0
        assert out.read_bytes() == manifest
        assert out.with_name("run.json").stat().st_mtime_ns != record
    assert json.loads(predicted.with_name("run.json").read_text())["kept"] == []


def test_an_interrupted_rerun_leaves_the_old_answers_accepted(
    predicted: Path, trained: Path, run_command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.evaluation.engine.Engine.run", interrupted)
        assert run_command("predict", predicted, predict_spec(), "--run", trained, "--force") == 130
    assert run_command("predict", predicted, predict_spec(), "--run", trained) == 0
    assert "finished already" in capsys.readouterr().out


def test_damaged_weights_are_refused_and_made_again(
    trained: Path, run_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One flipped bit of a weight is another model; before, its answers were scored."""
    shutil.copytree(trained.parent, tmp_path / "run")
    run, heads = tmp_path / "run" / "manifest.json", tmp_path / "run" / "heads.safetensors"
    data = bytearray(heads.read_bytes())
    data[-3] ^= 64
    heads.write_bytes(data)
    assert run_command("predict", tmp_path / "predictions" / "manifest.json", predict_spec(), "--run", run) == 2
    said = capsys.readouterr().err
    assert "heads.safetensors is damaged" in said
    assert f"snakemake --cores all -f {run}" in said
    assert run_command("train", run, train_spec()) == 0
    assert "heads.safetensors is damaged; it is made again" in capsys.readouterr().err
    assert heads.read_bytes() == trained.with_name("heads.safetensors").read_bytes()


def test_somebody_elses_run_features_and_backbone_are_refused(
    tiny_rooms: SceneIndex,
    trained: Path,
    pretrained: Path,
    run_command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another teacher's results, copied into this one's place."""
    run = {"dataset": "tiny_rooms", "backbone": "b", "teacher": "vggt", "recipe": "3drs", "seed": 0}
    out = tmp_path / "out" / "manifest.json"
    assert run_command("predict", out, predict_spec(run=run), "--run", trained) == 2
    assert "is not the run that is asked for: its run is null" in capsys.readouterr().err
    features = store(tiny_rooms, tmp_path / "features", scenes=6)
    assert run_command("train", out, train_spec() | {"teacher": "geometry"}, "--features", features) == 2
    assert "is not the features of 'geometry' on 'tiny_rooms': its teacher is \"random\"" in capsys.readouterr().err
    shutil.copytree(pretrained.parent, tmp_path / "other")
    change_manifest(tmp_path / "other" / "manifest.json", lambda content: content.update(backbone="other"))
    assert run_command("train", out, train_spec(), "--weights", tmp_path / "other" / "manifest.json") == 2
    assert 'its backbone is "other"' in capsys.readouterr().err
    assert not out.exists()
