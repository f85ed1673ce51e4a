"""Fine-tune one backbone under one teacher, recipe and seed.

Writes, in the folder of ``--out``: the model in the transformers layout, heads.safetensors, metrics.jsonl (one line a step),
checkpoints while it runs, run.json, and manifest.json last. A stopped run resumes from its latest checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.backbones.base import LoadedBackbone
    from pipeline.features.store import FeatureReader
    from pipeline.index import SceneIndex
    from pipeline.training.recipe import Recipe
    from pipeline.training.sampler import QuestionSampler

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
    from pipeline.compute import prepare_torch
    from pipeline.device import device
    from pipeline.provenance import run_record

    prepare_torch(args.threads)
    record_path = args.out.parent / "run.json"
    with (
        device(args.gpus) as where,
        run_record(record_path, verb="train", threads=args.threads, gpus=args.gpus) as record,
    ):
        args.out.unlink(missing_ok=True)
        record |= _train(args, where)


def _train(args: argparse.Namespace, device: str) -> dict[str, Any]:
    from pipeline import registry
    from pipeline.features.store import FeatureReader
    from pipeline.index import SceneIndex
    from pipeline.options import validate
    from pipeline.provenance import digest, write_manifest
    from pipeline.training.data import TrainingData
    from pipeline.training.loop import Trainer
    from pipeline.training.model import SpatialMLLM
    from pipeline.training.positions import clamped_centres
    from pipeline.training.recipe import Recipe

    spec, folder = args.spec, args.out.parent
    recipe = validate(Recipe, spec["recipe"], where="--spec: recipe")
    inputs = _inputs(args)
    index = SceneIndex(args.scenes)
    features = FeatureReader(args.features, part=recipe.part) if args.features else None
    member = registry.create("backbones", spec["backbone"])
    loaded = _load_backbone(member, args.weights, device)
    sampler = _sampler(spec, index, recipe)
    _check_features(features, sampler, index, args.features)
    unseen = _unseen_share(features, sampler, index, loaded, recipe, spec)
    if recipe.world_positions and (clamped := clamped_centres([index.records[name] for name in sampler.scene_ids])):
        print(f"warning: dataset {index.dataset!r}: {clamped}", flush=True)
    model = SpatialMLLM(loaded, recipe, teacher_dim=features.dim if features else None, seed=spec["seed"]).place(device)
    torch_seed(spec["seed"])
    steps = recipe.total_steps(sampler.total, sampler.visits)
    data = TrainingData(index, sampler, loaded, recipe, features, cache_mb=args.cache_mb)
    trainer = Trainer(model, data, folder, steps=steps, digest=digest([spec, inputs]), device=device)
    final = trainer.run()
    files = _save(loaded, model, folder)
    content = {name: spec[name] for name in ("dataset", "backbone", "teacher", "recipe", "seed")}
    content |= {"schema": SCHEMA_VERSION, "spec": digest(spec), "inputs": inputs, "scenes": index.digest}
    content |= {"steps": steps, "final": final, "unseen_cells": unseen}
    content |= {"training_samples": sampler.total, "files": files, "digest": digest(files)}
    write_manifest(args.out, content)
    trainer.checkpoints.remove()
    return {"steps": steps, "cached_mb": round(data.cached_bytes / 2**20, 1)}


def torch_seed(seed: int) -> None:
    """Seed torch's global generator (dropout, where a checkpoint has it)."""
    import torch

    from pipeline.provenance import seed_for

    torch.manual_seed(seed_for("train", seed))


def _inputs(args: argparse.Namespace) -> dict[str, Any]:
    """Digests of the manifests this run reads."""
    from pipeline.errors import DataError
    from pipeline.provenance import file_digest

    for path in (args.scenes, *([args.weights] if args.weights else []), *args.features):
        if not path.is_file():
            raise DataError(f"{path} does not exist", mend=f"snakemake --cores all {path}")
    return {
        "scenes": file_digest(args.scenes),
        "weights": file_digest(args.weights) if args.weights else "",
        "features": [file_digest(path) for path in args.features],
    }


def _load_backbone(member: Any, weights: Path | None, device: str) -> LoadedBackbone:
    """The pretrained backbone of ``--weights``, else the released checkpoint of the member's options."""
    from pipeline.errors import ConfigError

    folder = weights.parent if weights else member.options.model_dump().get("checkpoint")
    if folder is None:
        raise ConfigError(
            f"backbone {member.name!r} has no checkpoint and no --weights were given",
            mend=f"snakemake --cores all results/backbones/{member.name}/manifest.json",
        )
    loaded: LoadedBackbone = member.load(Path(folder), device=device)
    return loaded


def _sampler(spec: dict[str, Any], index: SceneIndex, recipe: Recipe) -> QuestionSampler:
    from pipeline import registry
    from pipeline.training.sampler import QuestionSampler

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
    from pipeline.errors import StoreError
    from pipeline.features.checks import same_frames

    if features is None:
        return
    scenes = sorted(set(sampler.scene_ids))
    missing = sorted(set(scenes) - set(features.scene_ids))
    if missing:
        raise StoreError(
            f"{len(missing)} training scenes have no features, first {missing[0]!r}",
            mend="give --features for every shard; extract the split `train` (config.yaml: features.splits)",
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
    from pipeline.training.unseen import count_unseen

    if features is None:
        return None
    found = count_unseen(features, index, sorted(set(sampler.scene_ids)), loaded, recipe)
    for line in found.lines(spec["teacher"], spec["backbone"]["name"]):
        print(f"warning: {line}", flush=True)
    return round(found.share, 4)


def _save(loaded: LoadedBackbone, model: Any, folder: Path) -> dict[str, str]:
    """Write model, tokenizer and heads; digests of the weight files."""
    from pipeline.nets.weights import save_weights
    from pipeline.provenance import file_digest

    loaded.save(folder)
    heads = {name: value for name, value in model.named_parameters() if not name.startswith("backbone.")}
    save_weights(folder / "heads.safetensors", heads)
    return {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
