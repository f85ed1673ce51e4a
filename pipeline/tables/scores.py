"""The score files of a cell: which ones it needs, and their content in memory.

A score file is long: rows of kind ``set`` (a metric over the whole set, with replicates over resampled scenes) and of kind
``sample`` (its per-sample values). See metrics/scorefile.py, which writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.finished import same_identity
from pipeline.core.provenance import digest, file_digest, read_manifest
from pipeline.metrics.scorefile import read_scores
from pipeline.study import paths
from pipeline.tables.machines import machine_of

Reals = NDArray[np.float64]
MetricKey = tuple[str, str, str, str]
"""(benchmark, metric, subset, reference name or "")."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """One run of a cell."""

    teacher: str
    recipe: str
    seed: int


@dataclass(frozen=True, slots=True)
class SetScore:
    """A metric over the whole set: ``replicates`` (R,) on R resamples of scenes, empty where there are none."""

    value: float
    n: int
    n_scenes: int
    replicates: Reals


@dataclass(frozen=True, slots=True)
class SampleScores:
    """Per-sample values of one metric (subset ``all``): parallel ``sample_ids``, ``scene_ids`` and ``values`` (n,)."""

    sample_ids: tuple[str, ...]
    scene_ids: tuple[str, ...]
    values: Reals


@dataclass(frozen=True, slots=True)
class RunScores:
    """All scores of one run. ``digests``: benchmark -> digest of its score file; ``manifest``: digest of the run's manifest.

    ``machine``: where it was trained and answered (machines.py), empty where nothing tells.
    """

    sets: dict[MetricKey, SetScore]
    samples: dict[tuple[str, str], SampleScores]
    digests: dict[str, str]
    manifest: str
    machine: str = ""


@dataclass(frozen=True, slots=True)
class BenchmarkFacts:
    """Facts of a benchmark that a table needs."""

    task: str
    headline: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A dataset x backbone: its runs in table order, its benchmarks in config order, the level of its intervals."""

    dataset: str
    backbone: str
    benchmarks: Mapping[str, BenchmarkFacts]
    runs: Mapping[RunKey, RunScores]
    level: float
    spec_digest: str


def expected_scores(
    dataset: str, backbone: str, runs: Iterable[RunKey], benchmarks: Iterable[str]
) -> dict[str, tuple[RunKey, str]]:
    """Map path below results/scores (its last parts name the run) to (run, benchmark), for every file a cell needs."""
    names = list(benchmarks)
    return {
        paths.SCORES.format(
            dataset=dataset, backbone=backbone, teacher=run.teacher, recipe=run.recipe, seed=run.seed, benchmark=benchmark
        ): (run, benchmark)
        for run in runs
        for benchmark in names
    }


def match_files(given: Sequence[Path], expected: Mapping[str, Any], *, what: str) -> dict[str, Path]:
    """Match given files to the expected path that each ends with, in that order. Raise DataError unless they match exactly."""
    found: dict[str, Path] = {}
    for path in given:
        ends = [name for name in expected if path.as_posix() == name or path.absolute().as_posix().endswith("/" + name)]
        if not ends:
            raise DataError(f"{path} is not a {what} of this cell", allowed=some_of(expected), fix="leave it out")
        if ends[0] in found:
            raise DataError(f"the {what} {ends[0]} is given twice", where=f"{found[ends[0]]}, {path}")
        found[ends[0]] = path
    missing = [name for name in expected if name not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(expected)} {what}s are missing: {some_of(missing)}",
            fix=f"snakemake --cores all {missing[0]}",
        )
    return {name: found[name] for name in expected}


def some_of(names: Iterable[str], most: int = 4) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f", ... ({len(listed) - most} more)" if len(listed) > most else "")


def load_cell(spec: Mapping[str, Any], scores: Sequence[Path], manifests: Sequence[Path]) -> Cell:
    """Read all runs of a cell from its resolved ``spec`` and the given files (see steps/cell.py).

    ``manifests``: of the runs; where the path grammar says when empty.
    DataError when the files are not exactly those of the spec, or a score file is of another dataset or benchmark.
    """
    try:
        dataset, backbone, benchmarks = spec["dataset"], spec["backbone"], list(spec["benchmarks"])
        keys = [RunKey(run["teacher"], run["recipe"], int(run["seed"])) for run in spec["runs"]]
    except KeyError as error:
        raise ConfigError(f"the specification has no {error}", allowed="dataset, backbone, runs, benchmarks") from None
    wanted = expected_scores(dataset, backbone, keys, benchmarks)
    found = match_files(scores, wanted, what="score file")
    run_files = {paths.RUN_MANIFEST.format(dataset=dataset, backbone=backbone, **asdict(key)): key for key in keys}
    given = match_files(list(manifests) or [Path(name) for name in run_files], run_files, what="run manifest")
    manifests_of = {run_files[name]: path for name, path in given.items()}
    made_with = spec.get("made_with")
    trained = {key: _run_manifest(path, dataset, backbone, key, made_with) for key, path in manifests_of.items()}
    runs = {key: RunScores({}, {}, {}, file_digest(path), _machine(path)) for key, path in manifests_of.items()}
    facts: dict[str, BenchmarkFacts] = {}
    origin: dict[str, tuple[str, Path]] = {}
    for name, path in found.items():
        key, benchmark = wanted[name]
        metadata = _add_scores(runs[key], path, dataset, benchmark)
        whose = {"run": identity(dataset, backbone, key), "weights": trained[key]["digest"]}
        whose |= {**made_with["scores"], "member": spec["benchmarks"][benchmark]} if made_with else {}
        same_identity(metadata, whose, path, f"the scores of {path.parent}")
        facts.setdefault(benchmark, BenchmarkFacts(metadata["task"], metadata["headline"]))
        _check_origin(origin.setdefault("scenes", (metadata["scenes"], path)), metadata["scenes"], path)
    facts = {benchmark: facts[benchmark] for benchmark in benchmarks}
    return Cell(dataset, backbone, facts, runs, float(spec.get("level", 0.95)), digest(dict(spec)))


def identity(dataset: str, backbone: str, key: RunKey) -> dict[str, Any]:
    """Return what names a run, in its own manifest and in all that is made of it."""
    return {"dataset": dataset, "backbone": backbone, **asdict(key)}


def _run_manifest(path: Path, dataset: str, backbone: str, key: RunKey, made_with: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a run's manifest. Raise DataError when it is missing, another run's, or has other options than ``made_with``."""
    content = read_manifest(path, made_by=f"snakemake --cores all {path}")
    wanted: dict[str, Any] = {"run": identity(dataset, backbone, key)}
    if made_with:
        wanted |= {"backbone": made_with["backbone"], "recipe": made_with["recipes"][key.recipe]}
        wanted |= {"member_of_features": made_with["teachers"][key.teacher]}
    same_identity(content, wanted, path, f"the run of {path.parent}")
    return content


def _machine(manifest: Path) -> str:
    """Return where a run was trained and, with predictions in the same results folder, where it answered."""
    answered = manifest.parents[6] / "predictions" / Path(*manifest.parts[-6:-1]) if len(manifest.parts) > 6 else None
    folders = [manifest.parent, *([answered] if answered else [])]
    return machine_of([folder / "run.json" for folder in folders])


def _check_origin(first: tuple[str, Path], scenes: str, path: Path) -> None:
    if first[0] != scenes:
        raise DataError(
            "score files were made on different versions of the scenes",
            where=f"{first[1]} ({first[0]}) and {path} ({scenes})",
            fix="snakemake --cores all results/tables/summary.parquet",
        )


def _add_scores(run: RunScores, path: Path, dataset: str, benchmark: str) -> dict[str, Any]:
    """Put the content of one score file into ``run``; its metadata."""
    sets, samples, metadata = read_scores(path)
    if (metadata.get("dataset"), metadata.get("benchmark")) != (dataset, benchmark):
        raise DataError(
            f"{path} holds scores of {metadata.get('benchmark')!r} on {metadata.get('dataset')!r}",
            allowed=f"{benchmark!r} on {dataset!r}",
            fix=f"snakemake --cores all -f {path}",
        )
    run.digests[benchmark] = file_digest(path)
    for row in sets.to_dict("records"):
        name = (benchmark, row["metric"], row["subset"], row["reference"])
        run.sets[name] = SetScore(row["value"], row["n"], row["n_scenes"], np.asarray(row["replicates"], dtype=np.float64))
    for metric, group in samples.groupby("metric", sort=False):
        values = group["value"].to_numpy(dtype=np.float64)
        run.samples[benchmark, str(metric)] = SampleScores(tuple(group["sample_id"]), tuple(group["scene_id"]), values)
    return metadata
