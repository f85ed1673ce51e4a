"""Answer all benchmarks with one fine-tuned run: one Parquet file per benchmark beside the manifest.

The model is loaded once. A benchmark whose file was finished for the same run, samples and options is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.core import registry
from pipeline.core.errors import CheckpointError, ConfigError
from pipeline.core.files import check_readable
from pipeline.core.finished import begin, check_files, finish, kept, same_identity
from pipeline.core.options import validate
from pipeline.core.progress import Progress
from pipeline.core.provenance import digest, file_digest, read_manifest, run_record
from pipeline.core.runtime import device, prepare_torch
from pipeline.evaluation.engine import Engine, Outputs
from pipeline.evaluation.records import finished_digest, questions_digest, row, same_scenes, write_records
from pipeline.scenes.index import SceneIndex
from pipeline.study.recipe import Recipe
from pipeline.training.model import SpatialMLLM
from pipeline.training.positions import clamped_centres

if TYPE_CHECKING:
    from pipeline.benchmarks.base import Benchmark
    from pipeline.scenes.types import Sample

HELP = "answer all benchmarks with one fine-tuned run"
OWNS_FOLDER = True
SCHEMA_VERSION = 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="results/scenes/{dataset}/manifest.json")
    parser.add_argument("--run", dest="run_manifest", type=Path, required=True, metavar="MANIFEST", help="manifest of the run")
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="manifest.json; Parquet files beside it")


def run(args: argparse.Namespace) -> None:
    with device(args.gpus) as where:  # first: report a missing GPU before inputs are read
        _run(args, where)


def _run(args: argparse.Namespace, device: str) -> None:
    spec = args.spec
    trained = read_manifest(args.run_manifest, made_by=f"snakemake --cores all {args.run_manifest}")
    index = SceneIndex(args.scenes)
    _same_run(trained, index, args)
    check_files(args.run_manifest, trained)
    benchmarks: dict[str, Benchmark] = {n: registry.create("benchmarks", m) for n, m in spec["benchmarks"].items()}
    samples = {name: benchmark.samples(index, spec["split"]) for name, benchmark in benchmarks.items()}
    inputs = _inputs(trained, index, benchmarks, samples, spec["split"])
    if kept(args.out, spec, inputs, force=args.force):
        return
    prepare_torch(args.threads)
    with run_record(args.out.parent / "run.json", command="predict", threads=args.threads, gpus=args.gpus) as record:
        record |= _predict(args, index, benchmarks, samples, inputs, device)


def _same_run(trained: Mapping[str, Any], index: SceneIndex, args: argparse.Namespace) -> None:
    """DataError or PredictionError unless the run is the one that is asked for, trained on these training scenes."""
    spec = args.spec
    wanted = {"backbone": spec["backbone"], "recipe": spec["recipe"]} | ({"run": spec["run"]} if "run" in spec else {})
    same_identity(trained, wanted, args.run_manifest, "the run that is asked for")
    if trained.get("dataset") == index.dataset:  # a run may answer for another dataset, whose scenes it never saw
        what = f"the run was trained when dataset {index.dataset!r} had other scenes or other frames of them"
        same_scenes(trained, index, "train", args.run_manifest, what)


def _inputs(
    trained: Mapping[str, Any],
    index: SceneIndex,
    benchmarks: Mapping[str, Benchmark],
    samples: Mapping[str, Sequence[Sample]],
    split: str,
) -> dict[str, Any]:
    """Digests of exactly what is read: the run's weights, scenes of the split, questions, and what parsing is tuned on."""
    tuned = {name: found for name, benchmark in benchmarks.items() if (found := benchmark.tuning_samples(index))}
    return {
        "weights": trained["digest"],
        "scenes": index.content_digest(split),
        "tuning_scenes": index.content_digest("train") if tuned else "",
        "questions": {name: questions_digest(found) for name, found in sorted(samples.items())},
        "tuning": {name: questions_digest(found) for name, found in sorted(tuned.items())},
    }


def _predict(
    args: argparse.Namespace,
    index: SceneIndex,
    benchmarks: Mapping[str, Benchmark],
    samples: Mapping[str, Sequence[Sample]],
    inputs: Mapping[str, Any],
    device: str,
) -> dict[str, Any]:
    spec, folder = args.spec, args.out.parent
    own = {name: spec.get(name) for name in ("backbone", "recipe", "split", "code")}
    shared = digest([own, inputs["weights"], inputs["scenes"], inputs["tuning_scenes"]])
    asked = {n: [spec["benchmarks"][n], inputs["questions"][n], inputs["tuning"].get(n, "")] for n in benchmarks}
    wanted = {name: digest([shared, content]) for name, content in asked.items()}
    missing = [n for n in benchmarks if args.force or finished_digest(folder / f"{n}.parquet") != wanted[n]]
    if missing:
        model = _load(args, spec, device)
        _answer(model, index, {n: benchmarks[n] for n in missing}, {n: samples[n] for n in missing}, wanted, args, device)
    files = {f"{name}.parquet": file_digest(folder / f"{name}.parquet") for name in sorted(benchmarks)}
    content = {"schema": SCHEMA_VERSION, "dataset": index.dataset, "split": spec["split"], "run": spec.get("run")}
    content |= {"weights": inputs["weights"], "scenes": inputs["scenes"], "files": files}
    content |= {"samples": {name: len(found) for name, found in sorted(samples.items())}, "questions": inputs["questions"]}
    finish(args.out, spec, inputs, content)
    return {"answered": missing, "kept": [name for name in benchmarks if name not in missing]}


def _load(args: argparse.Namespace, spec: Mapping[str, Any], device: str) -> SpatialMLLM:
    """The trained model; alignment projectors are not used at inference and not loaded."""
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
            fix=f"snakemake --cores all -f {args.run_manifest}",
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
    begin(args.out)  # not before: an older result stays whole while the model answers
    for name, benchmark in benchmarks.items():
        rows = []
        for sample in samples[name]:
            prompt, output = outputs[name, sample.sample_id]
            answer = benchmark.parse(sample, output)
            rows.append(row(index.dataset, args.spec["split"], name, sample, prompt, output, answer))
        write_records(args.out.parent / f"{name}.parquet", rows, digests[name])


def _tune(engine: Engine, index: SceneIndex, benchmarks: Mapping[str, Benchmark], split: str) -> None:
    """Let benchmarks choose on outputs to training samples what their parsing leaves free. ConfigError on split train."""
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
