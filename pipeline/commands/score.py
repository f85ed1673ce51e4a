"""Score the predictions of one run by the benchmarks' official metrics: one file per benchmark (metrics/scorefile.py).

Predictions must be exactly those of the benchmark's samples: every id once, in order. Anything else is refused, because a
stale or partial file would give a number that looks right.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import __version__
from pipeline.core import registry
from pipeline.core.errors import ConfigError, DataError, PredictionError
from pipeline.core.finished import same_identity
from pipeline.core.parquet import read_parquet
from pipeline.core.provenance import digest, file_digest, read_manifest, run_record
from pipeline.evaluation.records import questions_digest, same_scenes
from pipeline.metrics.boxes import usable_boxes
from pipeline.metrics.java import meteor_session
from pipeline.metrics.scorefile import write_scores
from pipeline.metrics.stats import Bootstrap, mean_replicates, scene_weights
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Answer

if TYPE_CHECKING:
    from pipeline.benchmarks.base import Benchmark, MetricResult
    from pipeline.scenes.types import Sample

HELP = "score the predictions of one run, one file per benchmark"
_COLUMNS = ("dataset", "split", "benchmark", "scene_id", "sample_id", "answer", "parsed", "boxes", "scores", "value", "count")
_SHOWN = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="results/scenes/{dataset}/manifest.json")
    parser.add_argument("--predictions", type=Path, required=True, metavar="MANIFEST", help="manifest of the run's predictions")
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, metavar="FILE", help="one {benchmark}.parquet per benchmark"
    )


def run(args: argparse.Namespace) -> None:
    """Score every benchmark that ``--out`` names."""
    members = args.spec["benchmarks"]
    names = [path.stem for path in args.out]
    wrong = sorted(set(names) - set(members)) or [n for n, times in Counter(names).items() if times > 1]
    if wrong:
        raise ConfigError(f"--out names {', '.join(wrong)}", allowed=f"each of {', '.join(sorted(members))} at most once")
    made = read_manifest(args.predictions, made_by=f"snakemake --cores all {args.predictions}")
    index = SceneIndex(args.scenes)
    split = args.spec["split"]
    whose = {"dataset": index.dataset, "split": split} | ({"run": args.spec["run"]} if "run" in args.spec else {})
    same_identity(made, whose, args.predictions, "the predictions that are asked for")
    same_scenes(made, index, split, args.predictions, "the predictions were made for other scenes or other frames of them")
    with run_record(args.out[0].parent / "run.json", command="score") as record:
        benchmarks = [registry.create("benchmarks", members[name]) for name in names]
        samples = {b.name: b.samples(index, split) for b in benchmarks}
        for name, found in samples.items():
            _check_answers(made, args.predictions, name, found)
        told = [s for b in benchmarks if b.generation_tokens for s in samples[b.name]]
        texts = [text for s in told for text in (*s.references, *s.metadata.get("tokens", ()))]
        with meteor_session(texts):
            for benchmark, out in zip(benchmarks, args.out, strict=True):
                score_benchmark(benchmark, samples[benchmark.name], index, args.predictions, out, args.spec, made)
        record["samples"] = {name: len(found) for name, found in samples.items()}


def _check_answers(made: dict[str, Any], manifest: Path, name: str, samples: Sequence[Sample]) -> None:
    """PredictionError when the manifest tells of another file, or of other questions, than those that are scored now."""
    path = manifest.parent / f"{name}.parquet"
    if not path.is_file():  # said when it is read
        return
    expected = {"files": made.get("files", {}).get(path.name), "questions": made.get("questions", {}).get(name)}
    found = {"files": file_digest(path), "questions": questions_digest(samples)}
    faults = {"files": f"{path} is not the file that was finished", "questions": f"{name} asks or expects something else now"}
    for key, value in expected.items():
        if value != found[key]:
            raise PredictionError(
                f"{faults[key]}: the answers are stale, or were changed",
                where=f"{manifest}: {key}.{name} is {value}",
                allowed=str(found[key]),
                fix=f"snakemake --cores all -f {manifest}",
            )


def score_benchmark(
    benchmark: Benchmark,
    samples: list[Sample],
    index: SceneIndex,
    predictions: Path,
    out: Path,
    spec: dict[str, Any],
    made: dict[str, Any],
) -> None:
    """Score one benchmark's samples into ``out``; ``made`` is the content of the predictions' manifest."""
    benchmark.bootstrap = Bootstrap(spec["bootstrap"]["replicates"], spec["bootstrap"]["seed"])
    path = predictions.parent / f"{benchmark.name}.parquet"
    answers = read_answers(path, samples, dataset=index.dataset, benchmark=benchmark.name, split=spec["split"])
    results = [with_replicates(r, samples, benchmark.bootstrap) for r in benchmark.score(samples, answers, index)]
    metadata = {
        "dataset": index.dataset,
        "benchmark": benchmark.name,
        "split": spec["split"],
        "headline": benchmark.headline,
        "task": benchmark.task,
        "bootstrap": spec["bootstrap"],
        "member": spec["benchmarks"][benchmark.name],
        "scenes": made["scenes"],
        "run": made.get("run"),
        "weights": made.get("weights", ""),
        "predictions": file_digest(path),
        "spec": digest({"member": spec["benchmarks"][benchmark.name], "code": spec.get("code", "")}),
        "version": __version__,
    }
    write_scores(out, results, samples, metadata)
    head = next((r for r in results if (r.metric, r.subset, r.reference) == (benchmark.headline, "all", "")), None)
    if head is None:
        print(f"warning: {benchmark.name}: nothing to score: the {len(samples)} questions of this split come without answers")
        return
    print(f"{benchmark.name}: {len(samples)} samples, {head.metric} {head.value:.2f}")


def with_replicates(result: MetricResult, samples: Sequence[Sample], bootstrap: Any) -> MetricResult:
    """Fill in ``replicates`` and ``n_scenes`` where a benchmark left them to us: the mean of ``per_sample`` on resamples."""
    if not result.per_sample or (len(result.replicates) and result.n_scenes):
        return result
    scenes = sorted({s.scene_id for s in samples})
    chosen = [s for s in samples if s.sample_id in result.per_sample]
    scene_index = np.searchsorted(np.array(scenes), np.array([s.scene_id for s in chosen])).astype(np.int64)
    replicates = result.replicates
    if not len(replicates):
        weights = scene_weights(scenes, bootstrap.replicates, bootstrap.seed)
        replicates = mean_replicates([result.per_sample[s.sample_id] for s in chosen], scene_index, weights)
    return replace(result, replicates=replicates, n_scenes=len({s.scene_id for s in chosen}))


def read_answers(path: Path, samples: Sequence[Sample], *, dataset: str, benchmark: str, split: str) -> list[Answer]:
    """Parsed answers from a predictions file, one per sample in sample order. PredictionError unless they fit exactly."""
    fix = f"snakemake --cores all -f {path.parent / 'manifest.json'}"
    try:
        table = read_parquet(path, made_by=fix, own=False)
    except DataError as error:
        raise PredictionError(f"predictions: {error.what}", fix=fix) from None
    absent = [c for c in _COLUMNS if c not in table.column_names]
    if absent:
        raise PredictionError(f"{path} has no column {', '.join(absent)}", allowed=", ".join(_COLUMNS), fix=fix)
    rows = table.select([c for c in table.column_names if c in (*_COLUMNS, "probabilities")]).to_pylist()
    fault = _mismatch(rows, samples, {"dataset": dataset, "benchmark": benchmark, "split": split})
    if fault:
        raise PredictionError(f"predictions are not those of these samples: {fault}", where=str(path), fix=fix)
    return [_answer(row, path, fix) for row in rows]


def _mismatch(rows: Sequence[dict[str, Any]], samples: Sequence[Sample], facts: dict[str, str]) -> str | None:
    """Return what is wrong with the rows' identity, or None."""
    for key, expected in facts.items():
        found = sorted({str(row[key]) for row in rows} - {expected})
        if found:
            return f"{key} is {', '.join(found[:_SHOWN])}, not {expected}"
    ids, wanted = [str(row["sample_id"]) for row in rows], [s.sample_id for s in samples]
    twice = [i for i, times in Counter(ids).items() if times > 1]
    if twice:
        return f"{len(twice)} ids come more than once ({', '.join(twice[:_SHOWN])})"
    missing, extra = sorted(set(wanted) - set(ids)), sorted(set(ids) - set(wanted))
    if missing or extra:
        named = ", ".join((missing or extra)[:_SHOWN])
        return f"{len(missing)} of {len(wanted)} samples are missing, {len(extra)} are unknown ({named})"
    if ids != wanted:
        first = next(i for i, (a, b) in enumerate(zip(ids, wanted, strict=True)) if a != b)
        return f"row {first} is {ids[first]}, expected {wanted[first]}: another order"
    moved = [s.sample_id for row, s in zip(rows, samples, strict=True) if row["scene_id"] != s.scene_id]
    return f"{len(moved)} rows name another scene ({', '.join(moved[:_SHOWN])})" if moved else None


def _answer(row: dict[str, Any], path: Path, fix: str) -> Answer:
    """One row's answer. PredictionError for what no benchmark can have written: it would be scored as something else."""
    fault = _row_fault(row)
    if fault:
        raise PredictionError(f"{row['sample_id']} {fault}", where=str(path), fix=fix)
    return Answer(
        text=row["answer"] or "",
        boxes=tuple(tuple(box) for box in row["boxes"] or ()),
        scores=tuple(row["scores"] or ()),
        value=row["value"],
        count=row["count"] or 0,
        parsed=bool(row["parsed"]),
    )


def _row_fault(row: dict[str, Any]) -> str | None:
    """Return what is wrong with a row's content, or None."""

    def numbers(values: Any) -> bool:
        return isinstance(values, list) and all(isinstance(v, int | float) and math.isfinite(v) for v in values)

    if not isinstance(row["answer"], str | None) or not isinstance(row["parsed"], bool | None):
        return "has an answer that is no text, or `parsed` that is not true or false"
    boxes, scores = row["boxes"] or [], row["scores"] or []
    if not isinstance(boxes, list) or not all(numbers(box) and len(box) == 6 for box in boxes):
        return "has a box that is not six finite numbers"
    if not usable_boxes(boxes).all():
        return "has a box with a negative size, or one larger or farther than 1,000 km"
    if not numbers(scores) or (boxes and len(scores) not in (0, len(boxes))):
        return f"has scores {scores!r} that are not finite numbers, one for each box"
    if not numbers(row.get("probabilities") or []):
        return "has probabilities that are not finite numbers"
    if not isinstance(row["count"], int | None) or not numbers([] if row["value"] is None else [row["value"]]):
        return "has a value or count that is not a finite number"
    return None
