"""Fine-tune one backbone under one teacher, recipe and seed.

Writes, in the folder of ``--out``: the model in the transformers layout, heads.safetensors, metrics.jsonl (one line a step),
checkpoints while it runs, run.json, and manifest.json last. A stopped run resumes from its latest checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.core import registry
from pipeline.core.errors import ConfigError, StoreError
from pipeline.core.finished import begin, check_files, digests_of, finish, kept, same_identity
from pipeline.core.options import validate
from pipeline.core.provenance import digest, file_digest, read_manifest, run_record, seed_for
from pipeline.core.runtime import device, prepare_torch
from pipeline.core.weights import save_weights
from pipeline.evaluation.records import questions_digest
from pipeline.features.checks import same_frames
from pipeline.features.store import FeatureReader
from pipeline.optim.loop import METRICS, final_means
from pipeline.scenes.index import SceneIndex
from pipeline.study.recipe import Recipe
from pipeline.training.data import TrainingData
from pipeline.training.loop import Trainer
from pipeline.training.model import SpatialMLLM
from pipeline.training.positions import clamped_centres
from pipeline.training.sampler import QuestionSampler
from pipeline.training.unseen import count_unseen

if TYPE_CHECKING:
    from pipeline.backbones.base import LoadedBackbone

HELP = "fine-tune a backbone with one teacher, recipe and seed"
OWNS_FOLDER = True
SCHEMA_VERSION = 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="scenes to train on (split train)")
    parser.add_argument("--weights", type=Path, metavar="MANIFEST", help="backbone that was pretrained here")
    parser.add_argument("--features", type=Path, nargs="*", default=[], metavar="MANIFEST", help="teacher features, all shards")
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="manifest.json of the run")
    parser.add_argument("--cache-mb", type=int, default=512, metavar="MB", help="memory for prepared scenes (default 512)")


def run(args: argparse.Namespace) -> None:
    with device(args.gpus) as where:  # first: report a missing GPU before inputs are read
        _run(args, where)


def _run(args: argparse.Namespace, device: str) -> None:
    spec = args.spec
    recipe = validate(Recipe, spec["recipe"], where="--spec: recipe")
    member = registry.create("backbones", spec["backbone"])
    index = SceneIndex(args.scenes)
    features = FeatureReader(args.features, layer=recipe.teacher_layer) if args.features else None
    folder, weights = _backbone(member, spec["backbone"], args.weights)
    _same_inputs(spec, index, features, args)
    sampler = _sampler(spec, index, recipe)
    _check_features(features, sampler, index, args.features)
    inputs = _inputs(index, sampler, features, weights)
    if kept(args.out, spec, inputs, force=args.force):
        return
    prepare_torch(args.threads)
    with run_record(args.out.parent / "run.json", command="train", threads=args.threads, gpus=args.gpus) as record:
        loaded = member.load(folder, device=device)
        record |= _train(args, _Job(index, sampler, features, recipe, loaded, inputs, device))


@dataclass(frozen=True, slots=True)
class _Job:
    """Everything that one run is trained with."""

    index: SceneIndex
    sampler: QuestionSampler
    features: FeatureReader | None
    recipe: Recipe
    loaded: LoadedBackbone
    inputs: dict[str, Any]
    device: str


def _train(args: argparse.Namespace, job: _Job) -> dict[str, Any]:
    spec, folder, features, sampler = args.spec, args.out.parent, job.features, job.sampler
    unseen = _unseen_share(features, sampler, job.index, job.loaded, job.recipe, spec)
    records = job.index.records
    if job.recipe.world_positions and (clamped := clamped_centres([records[name] for name in sampler.scene_ids])):
        print(f"warning: dataset {job.index.dataset!r}: {clamped}", flush=True)
    model = SpatialMLLM(job.loaded, job.recipe, teacher_dim=features.dim if features else None, seed=spec["seed"])
    model = model.place(job.device)
    torch_seed(spec["seed"])
    steps = job.recipe.total_steps(sampler.total, sampler.visits)
    data = TrainingData(job.index, sampler, job.loaded, job.recipe, features, cache_mb=args.cache_mb)
    trainer = Trainer(model, data, folder, steps=steps, digest=digest([spec, job.inputs]), device=job.device)
    final = final_means(trainer.run())
    begin(args.out)
    files = _save(job.loaded, model, folder)
    trainer.keep_metrics()
    content = {name: spec[name] for name in ("dataset", "backbone", "teacher", "recipe", "seed")}
    content |= {"run": spec.get("run"), "schema": SCHEMA_VERSION, "scenes": job.inputs["scenes"]}
    content |= {"member_of_features": spec.get("member_of_features")}
    content |= {"steps": steps, "final": final, "unseen_cells": unseen}
    content |= {"training_samples": sampler.total, "files": files, "digest": digest(files)}
    finish(args.out, spec, job.inputs, content)
    trainer.checkpoints.remove()
    metrics = {METRICS: file_digest(folder / METRICS)}  # not in the manifest: its lines hold times
    return {"steps": steps, "cached_mb": round(data.cached_bytes / 2**20, 1), "files": metrics}


def torch_seed(seed: int) -> None:
    """Seed torch's global generator (dropout, where a checkpoint has it)."""
    torch.manual_seed(seed_for("train", seed))


def _inputs(
    index: SceneIndex, sampler: QuestionSampler, features: FeatureReader | None, weights: dict[str, str]
) -> dict[str, Any]:
    """Digests of exactly what a run reads: training scenes and questions, their features, the weights it starts from."""
    return {
        "scenes": index.content_digest("train"),
        "questions": {name: questions_digest(found) for name, found in sorted(sampler.samples.items())},
        "features": features.content_digest(sorted(set(sampler.scene_ids))) if features else "",
        "weights": digest(weights),
    }


def _backbone(member: Any, spec: dict[str, Any], weights: Path | None) -> tuple[Path, dict[str, str]]:
    """Folder and digests of the files of the backbone that ``--weights`` names (its own, undamaged), else of the released
    checkpoint in the member's options."""
    if weights:
        made = read_manifest(weights, made_by=f"snakemake --cores all {weights}")
        same_identity(made, {"backbone": member.name, "member": spec}, weights, f"backbone {member.name!r}")
        check_files(weights, made)
        return weights.parent, made["files"]
    folder = member.options.model_dump().get("checkpoint")
    if folder is None:
        raise ConfigError(
            f"backbone {member.name!r} has no checkpoint and no --weights were given",
            fix=f"snakemake --cores all results/backbones/{member.name}/manifest.json",
        )
    return Path(folder), digests_of(Path(folder)) if Path(folder).is_dir() else {}


def _same_inputs(spec: dict[str, Any], index: SceneIndex, features: FeatureReader | None, args: argparse.Namespace) -> None:
    """DataError unless scenes and features are those of the dataset and the teacher that the specification names."""
    same_identity(index.content, {"dataset": spec["dataset"]}, args.scenes, f"the scenes of {spec['dataset']!r}")
    if features is None:
        return
    wanted = {"dataset": spec["dataset"], "teacher": spec["teacher"]}
    wanted |= {"member": spec["member_of_features"]} if "member_of_features" in spec else {}
    found = features.spec.to_json()
    same_identity(found, wanted, args.features[0], f"the features of {spec['teacher']!r} on {spec['dataset']!r}")


def _sampler(spec: dict[str, Any], index: SceneIndex, recipe: Recipe) -> QuestionSampler:
    samples = {name: registry.create("benchmarks", task).training_samples(index) for name, task in spec["benchmarks"].items()}
    return QuestionSampler(
        samples,
        dataset=spec["dataset"],
        seed=spec["seed"],
        scenes_per_step=recipe.scenes_per_step,
        questions_per_scene=recipe.questions_per_scene,
        balance=recipe.balance,
    )


def _check_features(
    features: FeatureReader | None, sampler: QuestionSampler, index: SceneIndex, manifests: Sequence[Path]
) -> None:
    """Every training scene must have features, of exactly its frames in their order, before the first step."""
    if features is None:
        return
    scenes = sorted(set(sampler.scene_ids))
    missing = sorted(set(scenes) - set(features.scene_ids))
    if missing:
        raise StoreError(
            f"{len(missing)} training scenes have no features, first {missing[0]!r}",
            fix="give --features for every shard; extract the split `train` (config.yaml: features.splits)",
        )
    for scene_id in scenes:
        same_frames(scene_id, features.frame_ids(scene_id), index.records[scene_id].frame_ids, manifests[0])


def _unseen_share(
    features: FeatureReader | None,
    sampler: QuestionSampler,
    index: SceneIndex,
    loaded: LoadedBackbone,
    recipe: Recipe,
    spec: dict[str, Any],
) -> float | None:
    """Share of the training scenes' cells that the teacher did not see (None without a teacher); says what is doubtful."""
    if features is None:
        return None
    found = count_unseen(features, index, sorted(set(sampler.scene_ids)), loaded, recipe)
    for line in found.lines(spec["teacher"], spec["backbone"]["name"]):
        print(f"warning: {line}", flush=True)
    return round(found.share, 4)


def _save(loaded: LoadedBackbone, model: Any, folder: Path) -> dict[str, str]:
    """Write model, tokenizer and heads; digests of all their files."""
    loaded.save(folder)
    heads = {name: value for name, value in model.named_parameters() if not name.startswith("backbone.")}
    save_weights(folder / "heads.safetensors", heads)
    return digests_of(folder)
