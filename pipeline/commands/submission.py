"""Write answers to a benchmark's hidden test set in the format that its evaluation server takes.

    python -m pipeline submission --predictions results/predictions/{run}/manifest.json --out pred.test_wo_obj.json

ScanQA: a JSON list of {scene_id, question_id, answer_top10, bbox}. ``answer_top10`` holds the one generated text ten times (a
ranking is not generated, and EM@10 is then EM@1); ``bbox`` is empty, no box is predicted. Source: ATR-DBI/ScanQA
scripts/predict.py for the format; Chat-Scene submits generated answers in this form.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError, PredictionError
from pipeline.core.parquet import read_parquet
from pipeline.core.provenance import file_digest, read_manifest, write_atomic

HELP = "write a run's answers to a hidden test set in the format of the benchmark's server (ScanQA)"
FORMATS = ("scanqa",)
_RANKS = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--predictions", type=Path, required=True, metavar="MANIFEST", help="manifest of the run's predictions")
    parser.add_argument("--benchmark", default="scanqa", metavar="NAME", help="its name in the config (default: scanqa)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file to submit, e.g. pred.test_wo_obj.json"
    )


def run(args: argparse.Namespace) -> None:
    """Check that the answers are those that were finished, then write them all, in their order."""
    made_by = f"snakemake --cores all -f {args.predictions}"
    made = read_manifest(args.predictions, made_by=made_by)
    files, path = made.get("files", {}), args.predictions.with_name(f"{args.benchmark}.parquet")
    if path.name not in files or not path.is_file():
        raise PredictionError(
            f"there are no answers to {args.benchmark!r} in this run",
            where=str(args.predictions),
            allowed=", ".join(Path(name).stem for name in files) or "(none)",
            fix="name one of them with --benchmark, or answer it first",
        )
    if file_digest(path) != files[path.name]:
        raise PredictionError(f"{path} is not the file that was finished", where=str(args.predictions), fix=made_by)
    columns = ["scene_id", "sample_id", "task", "answer"]
    rows = read_parquet(path, made_by=made_by, own=False).select(columns).to_pylist()
    other = sorted({row["task"] for row in rows} - {"qa"})
    if other:
        raise ConfigError(f"{path.stem} has no submission format here: its task is {other[0]}", allowed=", ".join(FORMATS))
    write_atomic(args.out, json.dumps([_entry(row) for row in rows], indent=1) + "\n")
    print(f"{args.out}: {len(rows)} answers about {len({row['scene_id'] for row in rows})} scenes, split {made.get('split')}")


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "scene_id": row["scene_id"],
        "question_id": row["sample_id"],
        "answer_top10": [row["answer"]] * _RANKS,
        "bbox": [],
    }
