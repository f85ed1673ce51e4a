"""One study of the built-in rooms, scans in ScanNet's format and houses in 3D-FRONT's: the same code scores all of them.

The commands of the rules, with the specifications that the workflow gives them, from the prepared index to the study's table.
The backbone is tiny and untrained, so the values mean nothing; they are computed again here from the predictions.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import front3d_files
import numpy as np
import pyarrow.parquet as pq
import pytest
import scannet_files

from pipeline.__main__ import main
from pipeline.backbones._transformers.prompts import INSTRUCTION, target_text, user_text
from pipeline.core import registry
from pipeline.core.finished import digests_of
from pipeline.core.provenance import write_manifest
from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.vsi import vsibench
from pipeline.scenes.index import SceneIndex
from pipeline.study import paths
from pipeline.study.config import StudyConfig
from pipeline.study.specs import Specs

DATASETS = ("rooms", "scannet", "front3d")
BENCHMARKS: dict[str, dict[str, Any]] = {
    "scanrefer": {}, "multi3drefer": {}, "scan2cap": {"meteor": False}, "scanqa": {"meteor": False}, "sqa3d": {},
    "vsibench": {"skip_missing_scenes": True}, "correspondence": {"voxel_m": 0.3},
}  # fmt: skip
RUN = {"backbone": "internvl_tiny", "teacher": "none", "recipe": "quick", "seed": 0}


def study(folder: Path) -> StudyConfig:
    """Configuration of the three datasets; writes the files that two of them read."""
    release = scannet_files.write_release(folder / "scannet")
    release.pop("test_scenes")
    official = [{"id": 1, "dataset": "scannetpp", "scene_name": "c4c04e6d6c", "question_type": "room_size_estimation",
                 "question": "What is the size of this room?", "ground_truth": "20.1", "options": None}]  # fmt: skip
    for scan, split in scannet_files.SCANS.items():
        if split == "val":
            found = vsibench(scannet_files.room(scan)[1], Balancer(np.random.default_rng(0)), 10, len(official) + 1, "scannet")
            official += found
    (folder / "scannet/annotations/test.jsonl").write_text("".join(json.dumps(e) + "\n" for e in official))
    small = {"views": 3, "width_px": 96, "height_px": 72, "vsibench_per_room": 6}
    return StudyConfig(
        {
            "datasets": {
                "rooms": {"train": 2, "val": 2, "test": 0, **small},
                "scannet": release | {"benchmarks": [n for n in BENCHMARKS if n != "correspondence"]},
                "front3d": front3d_files.write_front3d(folder) | small | {"val_share": 0.4, "test_share": 0.0},
            },
            "teachers": {},
            "backbones": {"internvl_tiny": {"kind": "internvl", "size": "tiny", "pretrain": {"dataset": "rooms"}}},
            "recipes": {"quick": {"steps": 1, "scenes_per_step": 1, "questions_per_scene": 4, "world_positions": False}},
            "benchmarks": BENCHMARKS,
            "evaluation": {"split": "val", "bootstrap_replicates": 100},
            "study": {"teachers": ["none"], "seeds": [0]},
        }
    )


def untrained_backbone(specs: Specs, scenes: Path, folder: Path) -> None:
    """In place of `pretrain_backbone`: random weights, and a tokenizer of the rooms' texts."""
    made = registry.create("backbones", specs.config.backbones["internvl_tiny"])
    tasks = [registry.create("benchmarks", m) for m in specs.config.benchmarks.values()]
    found = [s for t in tasks if t.task != "representation" for s in t.training_samples(SceneIndex(scenes))]
    folder.mkdir(parents=True)
    made.train_tokenizer([INSTRUCTION, *(user_text(s) for s in found), *(target_text(s) for s in found)], folder)
    made.build(folder, seed=0, device="cpu").save(folder)
    content = {"backbone": made.name, "member": specs.config.backbones[made.name], "files": digests_of(folder)}
    write_manifest(folder / "manifest.json", content)


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Specs]:
    """Specifications of the study, after every command has run in a folder of its own; that folder is the working folder."""
    folder = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = Specs(study(folder))
        for dataset in DATASETS:
            command("prepare", made.prepare(dataset), "--out", paths.SCENES.format(dataset=dataset))
        untrained_backbone(made, Path(paths.SCENES.format(dataset="rooms")), Path(paths.BACKBONE.format(**RUN)).parent)
        for dataset in DATASETS:
            run_cell(made, dataset)
        command("summary", made.summary(), "--cells", *made.cells(), "--out", paths.SUMMARY)
        yield made


def run_cell(specs: Specs, dataset: str) -> None:
    """train, predict, score and cell. But for the run's name, predict and score are told the same for every dataset."""
    cell = {"dataset": dataset, **RUN}
    scenes = ("--scenes", paths.SCENES.format(**cell))
    run, predictions = paths.RUN_MANIFEST.format(**cell), paths.PREDICTIONS.format(**cell)
    scores = [paths.SCORES.format(**cell, benchmark=name) for name in BENCHMARKS]
    named = (dataset, RUN["backbone"], RUN["teacher"], RUN["recipe"], str(RUN["seed"]))
    command("train", specs.train(*named), *scenes, "--weights", paths.BACKBONE.format(**cell), "--out", run)
    command("predict", specs.predict(*named), *scenes, "--run", run, "--out", predictions)
    command("score", specs.score(*named), *scenes, "--predictions", predictions, "--out", *scores)
    command(
        "cell", specs.cell(dataset, RUN["backbone"]), "--runs", run, "--scores", *scores, "--out", paths.CELL.format(**cell)
    )


def command(name: str, spec: str, *arguments: str) -> None:
    import torch

    threads = torch.get_num_threads()
    try:
        assert main([name, "--spec", spec, *arguments]) == 0
    finally:
        torch.set_num_threads(threads)


def rows_of(dataset: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows of the study's table by benchmark, metric, subset and kind of level."""
    table = pq.ParquetFile(paths.SUMMARY).read().to_pylist()
    chosen = [row for row in table if row["dataset"] == dataset]
    return {(row["benchmark"], row["metric"], row["subset"], row["reference"] or ""): row for row in chosen}


def predictions(dataset: str, benchmark: str) -> list[dict[str, Any]]:
    path = Path(paths.PREDICTIONS.format(dataset=dataset, **RUN)).with_name(f"{benchmark}.parquet")
    return pq.ParquetFile(path).read().to_pylist()


def test_one_specification_scores_all_datasets(specs: Specs) -> None:
    """But for the run's name predict and score are told nothing of a dataset, and the code behind them names no kind of one."""
    kinds = set(registry.member_files("datasets"))
    told = ""
    for spec in (specs.predict, specs.score):
        content = json.loads(spec("rooms", "internvl_tiny", "none", "quick", "0"))
        assert content.pop("run")["dataset"] == "rooms"
        told += json.dumps(content)
    assert not [kind for kind in kinds - {"rooms"} if f'"{kind}"' in told], "the backbone's pretraining names the rooms"
    root = registry.PACKAGE
    files = [root / "backbones/_transformers/prompts.py", root / "commands/predict.py", root / "commands/score.py"]
    files += [f for part in ("benchmarks", "metrics", "evaluation", "tables") for f in (root / part).rglob("*.py")]
    named = {
        (file.name, node.value)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in kinds
    }
    assert not named, "scores that depend on the kind of a dataset"


def test_every_dataset_has_the_same_rows(specs: Specs) -> None:
    found = {dataset: rows_of(dataset) for dataset in DATASETS}
    whole = {d: {key for key in rows if key[2] == "all"} for d, rows in found.items()}
    assert whole["rooms"] == whole["scannet"] == whole["front3d"]
    assert {key[0] for key in whole["rooms"]} == set(BENCHMARKS)
    for dataset, rows in found.items():
        index = SceneIndex(Path(paths.SCENES.format(dataset=dataset)))
        for name, member in specs.config.benchmarks.items():
            benchmark = registry.create("benchmarks", member)
            samples = benchmark.samples(index, "val")
            row = rows[name, benchmark.headline, "all", ""]
            assert len(samples) == len(predictions(dataset, name)) > 0
            assert np.isfinite(row["value"])
            if benchmark.task != "representation":  # a scene whose views share no voxel has no correspondence
                assert (row["n"], row["n_scenes"]) == (len(samples), len({s.scene_id for s in samples}))


def overlap(box: list[float], shown: list[float]) -> float:
    """Intersection over union of two boxes [cx,cy,cz,dx,dy,dz], from their corners."""
    a, b = (np.array([np.array(v[:3]) - np.array(v[3:]) / 2, np.array(v[:3]) + np.array(v[3:]) / 2]) for v in (box, shown))
    common = np.prod(np.clip(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0, None))
    return float(common / (np.prod(a[1] - a[0]) + np.prod(b[1] - b[0]) - common + 1e-8))


@pytest.mark.usefixtures("specs")
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_table_holds_what_the_predictions_are_worth(dataset: str) -> None:
    """ScanRefer's accuracy and the exact matches, from prediction files, manifest and annotation files alone."""
    rows = rows_of(dataset)
    folder = Path(paths.SCENES.format(dataset=dataset)).parent
    manifest = json.loads((folder / "manifest.json").read_text())
    boxes = {(s["scene_id"], o["object_id"]): o["box"] for s in manifest["scenes"] for o in s["objects"]}
    candidates = {s["scene_id"]: s["proposals"] for s in manifest["scenes"]}
    hits, share = [], []
    for row in predictions(dataset, "scanrefer"):
        scene, target, _ = row["sample_id"].split("|")
        shown = row["boxes"][int(np.argmax(row["scores"]))] if len(row["boxes"]) > 1 else row["boxes"][0]
        hits.append(overlap(boxes[scene, int(target)], shown) >= 0.25)
        share.append(np.mean([overlap(boxes[scene, int(target)], c) >= 0.25 for c in candidates[scene]]))
    assert rows["scanrefer", "acc@0.25", "all", "chance"]["value"] == pytest.approx(100 * np.mean(share)) != 0
    assert rows["scanrefer", "acc@0.25", "all", ""]["value"] == pytest.approx(100 * np.mean(hits))
    (file,) = manifest["annotations"]["scanqa"]["val"]
    answers = {e["question_id"]: e["answers"] for e in json.loads((folder / file).read_text())}
    right = [row["answer"] in answers[row["sample_id"]] for row in predictions(dataset, "scanqa")]
    assert rows["scanqa", "em", "all", ""]["value"] == pytest.approx(100 * np.mean(right))
    assert rows["scanqa", "em", "all", "type_majority"]["value"] > 0
