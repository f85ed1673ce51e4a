"""A made-up study written as real score files and run manifests: the inputs of the table steps without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmarks.base import MetricResult
from pipeline.core.provenance import seed_for, write_manifest
from pipeline.metrics.scorefile import write_scores
from pipeline.metrics.stats import mean_replicates, scene_weights
from pipeline.scenes.types import Sample
from pipeline.study import paths
from pipeline.tables.schema import SCHEMA, Row

BENCHMARKS: dict[str, tuple[str, str, float]] = {
    "scanrefer": ("grounding", "acc@0.25", 34.0),
    "scanqa": ("qa", "em", 31.0),
    "correspondence": ("representation", "same_voxel", 0.62),
}
"""Benchmark -> (task, headline metric, level of the baseline)."""
EFFECT = {"none": 0.0, "geometry": 6.0, "shuffled": -0.4}


def blank_row(backbone: str, teacher: str, benchmark: str, **more: Any) -> Row:
    """A headline row of the table with nothing in it but its key."""
    row: Row = {name: [] if str(SCHEMA.field(name).type).startswith("list") else None for name in SCHEMA.names}
    row |= {"dataset": "rooms", "recipe": "3drs", "subset": "all", "row_type": "measured", "reference": "", "metric": "em"}
    row |= {"backbone": backbone, "teacher": teacher, "benchmark": benchmark, "task": "qa", "unit": "percent"}
    return row | {"headline": True, "n_scenes": 40} | more


def samples_of(benchmark: str, scenes: int, per_scene: int) -> list[Sample]:
    """Samples with ids ``{scene}|{number}``; the representation benchmark has one per scene."""
    task = BENCHMARKS[benchmark][0]
    count = 1 if task == "representation" else per_scene
    return [
        Sample(sample_id=f"room{s:02d}|{i}", scene_id=f"room{s:02d}", benchmark=benchmark, task=task)  # type: ignore[arg-type]
        for s in range(scenes)
        for i in range(count)
    ]


def result(
    metric: str, samples: Sequence[Sample], values: np.ndarray, replicates: int, *, subset: str = "all", reference: str = ""
) -> MetricResult:
    """A metric that is the mean over samples, with its scene bootstrap."""
    scenes = sorted({sample.scene_id for sample in samples})
    index = np.asarray([scenes.index(sample.scene_id) for sample in samples])
    return MetricResult(
        metric=metric,
        subset=subset,
        value=float(values.mean()),
        n=len(samples),
        per_sample={sample.sample_id: float(value) for sample, value in zip(samples, values, strict=True)},
        replicates=mean_replicates(values, index, scene_weights(scenes, replicates, 0)),
        reference=reference,
        n_scenes=len(scenes),
    )


def values_of(benchmark: str, backbone: str, teacher: str, seed: int, samples: Sequence[Sample]) -> np.ndarray:
    """Per-sample values: a scene's and a sample's own difficulty, the teacher's effect, noise of the run."""
    task, _, level = BENCHMARKS[benchmark]
    run = np.random.default_rng(seed_for("run", benchmark, backbone, teacher, seed))
    shared = np.random.default_rng(seed_for("shared", benchmark))
    scenes = {scene: shared.normal() for scene in dict.fromkeys(sample.scene_id for sample in samples)}
    easy = np.asarray([scenes[sample.scene_id] for sample in samples])
    if task == "representation":
        return level + 0.04 * easy + 0.01 * EFFECT[teacher] + 0.01 * run.normal(size=len(samples)) + 0.004 * run.normal()
    chance = (level + 8 * easy + EFFECT[teacher] + 1.5 * run.normal()) / 100
    luck = 0.7 * shared.uniform(size=len(samples)) + 0.3 * run.uniform(size=len(samples))
    return 100.0 * (luck < np.clip(chance, 0.02, 0.98))


def write_run(
    root: Path, backbone: str, teacher: str, seed: int, *, scenes: int = 16, per_scene: int = 8, replicates: int = 200
) -> None:
    """Score files and manifest of one run below ``root``."""
    run = {"dataset": "rooms", "backbone": backbone, "teacher": teacher, "recipe": "3drs", "seed": seed}
    for benchmark, (task, headline, _) in BENCHMARKS.items():
        samples = samples_of(benchmark, scenes, per_scene)
        values = values_of(benchmark, backbone, teacher, seed, samples)
        results = [result(headline, samples, values, replicates)]
        if task != "representation":
            half = len(samples) // 2
            results.append(result(headline, samples[:half], values[:half], replicates, subset="easy"))
            results.append(result(headline, samples, np.full(len(samples), 12.5), replicates, reference="chance"))
        metadata = {"dataset": "rooms", "benchmark": benchmark, "headline": headline, "task": task, "scenes": "abc"}
        metadata |= {"run": run, "weights": f"weights of {teacher}, {seed}"}
        write_scores(root / paths.SCORES.format(**run, benchmark=benchmark), results, samples, metadata)
    write_manifest(root / paths.RUN_MANIFEST.format(**run), {"run": run, "digest": f"weights of {teacher}, {seed}"})


def spec_of(
    backbone: str, teachers: Sequence[str] = ("none", "geometry", "shuffled"), seeds: Sequence[int] = (0, 1)
) -> dict[str, Any]:
    """The resolved spec of a cell, as pipeline/study/specs.py makes it."""
    runs = [{"teacher": teacher, "recipe": "3drs", "seed": seed} for teacher in teachers for seed in seeds]
    return {
        "dataset": "rooms",
        "backbone": backbone,
        "runs": runs,
        "benchmarks": {name: {} for name in BENCHMARKS},
        "level": 0.95,
    }


def write_cell(root: Path, backbone: str, **options: Any) -> tuple[dict[str, Any], list[Path], list[Path]]:
    """All runs of a cell; its spec, score files and run manifests."""
    spec = spec_of(backbone, **options)
    scores, manifests = [], []
    for run in spec["runs"]:
        write_run(root, backbone, run["teacher"], run["seed"])
        named = {"dataset": "rooms", "backbone": backbone, **run}
        scores += [root / paths.SCORES.format(**named, benchmark=benchmark) for benchmark in BENCHMARKS]
        manifests.append(root / paths.RUN_MANIFEST.format(**named))
    return spec, scores, manifests
