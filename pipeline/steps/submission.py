"""Write answers to a benchmark's hidden test set in the format that its evaluation server takes.

    python -m pipeline submission --predictions results/predictions/{run}/manifest.json --out pred.test_wo_obj.json

ScanQA: a JSON list of {scene_id, question_id, answer_top10, bbox}. ``answer_top10`` holds the one generated text ten times (a
ranking is not generated, and EM@10 is then EM@1); ``bbox`` is empty, no box is predicted. Source: ATR-DBI/ScanQA
scripts/predict.py for the format; Chat-Scene submits generated answers in this form.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "write a run's answers to a hidden test set in the format of the benchmark's server (ScanQA)"
FORMATS = ("scanqa",)
_RANKS = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--predictions", type=Path, required=True, metavar="MANIFEST", help="manifest of the run's predictions")
    parser.add_argument("--benchmark", default="scanqa", metavar="NAME", help="its name in the config (default: scanqa)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file to submit, e.g. pred.test_wo_obj.json"
    )


def run(args: argparse.Namespace) -> None:
    """Check that the answers are those that were finished, then write them all, in their order."""
    import json

    from pipeline.errors import PredictionError
    from pipeline.provenance import file_digest, read_manifest, write_atomic

    made_by = f"snakemake --cores all {args.predictions}"
    made = read_manifest(args.predictions, made_by=made_by)
    files = made.get("files", {})
    path = args.predictions.with_name(f"{args.benchmark}.parquet")
    if args.benchmark not in files or not path.is_file():
        raise PredictionError(
            f"there are no answers to {args.benchmark!r} in this run",
            where=str(args.predictions),
            allowed=", ".join(files) or "(none)",
            mend="name one of them with --benchmark, or answer it first",
        )
    if file_digest(path) != files[args.benchmark]:
        raise PredictionError(f"{path} is not the file that was finished", where=str(args.predictions), mend=f"{made_by} -f")
    entries = [_entry(row) for row in _rows(path)]
    write_atomic(args.out, json.dumps(entries, indent=1) + "\n")
    print(f"{args.out}: {len(entries)} answers about {len({e['scene_id'] for e in entries})} scenes, split {made.get('split')}")


def _rows(path: Path) -> list[dict[str, Any]]:
    """Answers of a benchmark that asks questions. ConfigError for another kind of task."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.errors import ConfigError, PredictionError

    try:
        rows = pq.ParquetFile(path).read(columns=["scene_id", "sample_id", "task", "answer"]).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise PredictionError(f"{path} is not a readable Parquet file ({error})", mend="answer it again") from None
    other = sorted({row["task"] for row in rows} - {"qa"})
    if other:
        raise ConfigError(f"{path.stem} has no submission format here: its task is {other[0]}", allowed=", ".join(FORMATS))
    return rows


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "scene_id": row["scene_id"],
        "question_id": row["sample_id"],
        "answer_top10": [row["answer"]] * _RANKS,
        "bbox": [],
    }
