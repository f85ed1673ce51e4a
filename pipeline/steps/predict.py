"""Answer all benchmarks with one fine-tuned run: one Parquet file per benchmark beside the manifest.

The model is loaded once. A benchmark whose file was finished for the same run, samples and options is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.benchmarks.base import Benchmark
    from pipeline.evaluation.engine import Engine
    from pipeline.index import SceneIndex
    from pipeline.scene import Sample
    from pipeline.training.model import SpatialMLLM

HELP = "answer all benchmarks with one fine-tuned run"
OWNS_FOLDER = True
SCHEMA_VERSION = 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="results/scenes/{dataset}/manifest.json")
    parser.add_argument("--run", dest="run_manifest", type=Path, required=True, metavar="MANIFEST", help="manifest of the run")
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="manifest.json; Parquet files beside it")


def run(args: argparse.Namespace) -> None:
    from pipeline.compute import prepare_torch
    from pipeline.device import device
    from pipeline.provenance import run_record

    prepare_torch(args.threads)
    record_path = args.out.parent / "run.json"
    with (
        device(args.gpus) as where,
        run_record(record_path, verb="predict", threads=args.threads, gpus=args.gpus) as record,
    ):
        args.out.unlink(missing_ok=True)
        record |= _predict(args, where)


def _predict(args: argparse.Namespace, device: str) -> dict[str, Any]:
    from pipeline import registry
    from pipeline.evaluation.records import finished_digest, questions_digest, same_scenes
    from pipeline.index import SceneIndex
    from pipeline.provenance import digest, file_digest, read_manifest, write_manifest

    spec, folder = args.spec, args.out.parent
    trained = read_manifest(args.run_manifest, made_by=f"snakemake --cores all {args.run_manifest}")
    index = SceneIndex(args.scenes)
    if trained.get("dataset") == index.dataset:  # a run may answer for another dataset, whose scenes it never saw
        what = f"the run was trained when dataset {index.dataset!r} had other scenes or other frames of them"
        same_scenes(trained, index, args.run_manifest, what)
    benchmarks: dict[str, Benchmark] = {n: registry.create("benchmarks", m) for n, m in spec["benchmarks"].items()}
    samples = {name: benchmark.samples(index, spec["split"]) for name, benchmark in benchmarks.items()}
    own = {name: spec.get(name) for name in ("backbone", "recipe", "split", "code")}
    run_digest = digest([trained["digest"], own, index.digest])
    questions = {name: questions_digest(found) for name, found in sorted(samples.items())}
    wanted = {n: digest([run_digest, spec["benchmarks"][n], questions[n]]) for n in benchmarks}
    missing = [name for name in benchmarks if finished_digest(folder / f"{name}.parquet") != wanted[name]]
    if missing:
        model = _load(args, spec, device)
        _answer(model, index, {n: benchmarks[n] for n in missing}, {n: samples[n] for n in missing}, wanted, args, device)
    files = {name: file_digest(folder / f"{name}.parquet") for name in sorted(benchmarks)}
    content = {"schema": SCHEMA_VERSION, "dataset": index.dataset, "split": spec["split"], "spec": digest(spec)}
    content |= {"run": trained["digest"], "scenes": index.digest, "files": files}
    content |= {"samples": {name: len(found) for name, found in sorted(samples.items())}, "questions": questions}
    write_manifest(args.out, content)
    return {"answered": missing, "kept": [name for name in benchmarks if name not in missing]}


def _load(args: argparse.Namespace, spec: Mapping[str, Any], device: str) -> SpatialMLLM:
    """The trained model; alignment projectors are not used at inference and not loaded."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from pipeline import registry
    from pipeline.errors import CheckpointError
    from pipeline.files import check_readable
    from pipeline.options import validate
    from pipeline.training.model import SpatialMLLM
    from pipeline.training.recipe import Recipe

    folder = args.run_manifest.parent
    recipe = validate(Recipe, spec["recipe"], where="--spec: recipe")
    loaded = registry.create("backbones", spec["backbone"]).load(folder, device=device)
    model = SpatialMLLM(loaded, recipe, teacher_dim=None, seed=0)
    check_readable(folder / "heads.safetensors")
    try:
        heads = load_file(folder / "heads.safetensors")
        model.grounding.load_state_dict(
            {name.removeprefix("grounding."): tensor for name, tensor in heads.items() if name.startswith("grounding.")}
        )
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"heads of the run cannot be loaded ({str(error).splitlines()[0]})",
            where=str(folder / "heads.safetensors"),
            mend=f"snakemake --cores all -f {args.run_manifest}",
        ) from None
    return model.place(device)


def _answer(
    model: SpatialMLLM,
    index: SceneIndex,
    benchmarks: Mapping[str, Benchmark],
    samples: Mapping[str, Sequence[Sample]],
    digests: Mapping[str, str],
    args: argparse.Namespace,
    device: str,
) -> None:
    """Answer these benchmarks and write a file for each, after tuning on training scenes where that is asked for."""
    from pipeline.evaluation.engine import Engine, Outputs
    from pipeline.evaluation.records import row, write_records
    from pipeline.progress import Progress
    from pipeline.training.positions import clamped_centres

    asked = list(dict.fromkeys(sample.scene_id for found in samples.values() for sample in found))
    if model.world is not None and (clamped := clamped_centres([index.records[name] for name in asked])):
        print(f"warning: dataset {index.dataset!r}: {clamped}", flush=True)
    engine = Engine(model, index, benchmarks, device=device)
    _tune(engine, index, benchmarks, args.spec["split"])
    outputs: Outputs = {}
    with Progress("predict", len(asked), "scenes") as progress:
        for count, found in engine.run(samples):
            outputs |= found
            progress.step(count)
    for name, benchmark in benchmarks.items():
        rows = []
        for sample in samples[name]:
            prompt, output = outputs[name, sample.sample_id]
            answer = benchmark.parse(sample, output)
            rows.append(row(index.dataset, args.spec["split"], name, sample, prompt, output, answer))
        write_records(args.out.parent / f"{name}.parquet", rows, digests[name])


def _tune(engine: Engine, index: SceneIndex, benchmarks: Mapping[str, Benchmark], split: str) -> None:
    """Let benchmarks choose on outputs to training samples what their parsing leaves free. ConfigError on split train."""
    from pipeline.errors import ConfigError

    asked = {name: found for name, benchmark in benchmarks.items() if (found := benchmark.tuning_samples(index))}
    if asked and split == "train":
        raise ConfigError(
            f"{', '.join(asked)} would be tuned on the split that is reported",
            where="evaluation.split",
            allowed="val or test where a benchmark has tune_scenes",
        )
    outputs = {key: output for _, found in engine.run(asked) for key, (_, output) in found.items()} if asked else {}
    for name, samples in asked.items():
        benchmarks[name].tune(samples, [outputs[name, sample.sample_id] for sample in samples], index)
