"""Prediction files: one row per sample of a benchmark, in sample order, with question, raw output and parsed answer.

A file carries a digest of everything it depends on in its metadata; a file with the wanted digest is finished work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core.errors import DataError, PredictionError
from pipeline.core.parquet import read_parquet, write_parquet
from pipeline.core.provenance import digest as digest_of
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Answer, ModelOutput, Sample

_DIGEST = b"pipeline.digest"

SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("scene_id", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("raw_text", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("parsed", pa.bool_(), nullable=False),
        pa.field("boxes", pa.list_(pa.list_(pa.float64())), nullable=False),
        pa.field("scores", pa.list_(pa.float64()), nullable=False),
        pa.field("probabilities", pa.list_(pa.float64()), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
"""``prompt``: the full user text after the images ("" where nothing was asked). ``probabilities``: zero target last."""


def same_scenes(made: Mapping[str, Any], index: SceneIndex, split: str, manifest: Path, what: str) -> None:
    """Raise PredictionError, naming ``what``, unless ``made`` was made with the split's scenes in their current state."""
    found = index.content_digest(split)
    if made.get("scenes") != found:
        raise PredictionError(
            what,
            where=f"{manifest}: scenes {made.get('scenes')}",
            allowed=f"scenes {found}, those of split {split} of {index.path}",
            fix=f"snakemake --cores all -f {manifest}",
        )


def questions_digest(samples: Sequence[Sample]) -> str:
    """Return a digest of everything asked: texts, boxes shown, gates, references, targets and subsets, in order."""
    return digest_of([asdict(sample) for sample in samples])


def row(
    dataset: str, split: str, benchmark: str, sample: Sample, prompt: str, output: ModelOutput, answer: Answer
) -> dict[str, Any]:
    """Return one row of a prediction file."""
    return {
        "dataset": dataset,
        "split": split,
        "benchmark": benchmark,
        "scene_id": sample.scene_id,
        "sample_id": sample.sample_id,
        "task": sample.task,
        "prompt": prompt,
        "raw_text": output.raw_text,
        "answer": answer.text,
        "parsed": answer.parsed,
        "boxes": [list(box) for box in answer.boxes],
        "scores": list(answer.scores),
        "probabilities": [] if output.probabilities is None else output.probabilities.tolist(),
        "value": answer.value,
        "count": answer.count,
    }


def write_records(path: Path, rows: Sequence[dict[str, Any]], digest: str) -> None:
    """Write rows atomically; equal rows give equal bytes."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA.with_metadata({_DIGEST: digest.encode()}))
    write_parquet(path, table)


def finished_digest(path: Path) -> str | None:
    """Return the digest a prediction file was made for; None when there is no undamaged file of this schema."""
    try:
        schema = read_parquet(path, made_by="").schema
    except DataError:
        return None
    return (schema.metadata or {}).get(_DIGEST, b"").decode() if schema.equals(SCHEMA) else None
