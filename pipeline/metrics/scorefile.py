"""Score files: results/scores/<run>/{benchmark}.parquet, one long table of two kinds of rows.

``set``     a metric over a subset of the samples: ``value``, ``n``, ``n_scenes`` and ``replicates`` (on resampled scenes).
            ``reference`` is empty for a measurement; else it names a level to read the metric against (chance, best_constant).
``sample``  the value of one sample (subset ``all``, measurements only), for metrics that are defined on single samples.

Units are those of ``MetricResult``: percent, x100 for caption scores, cosines as they are. The file's metadata, key
``pipeline``, holds JSON with what the scores were made from. Equal scores give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core.errors import DataError
from pipeline.core.parquet import read_parquet, write_parquet
from pipeline.scenes.types import Sample

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from pipeline.benchmarks.base import MetricResult

SCHEMA_VERSION = 1
SET, SAMPLE = "set", "sample"


class Scores(NamedTuple):
    """Content of a score file. ``sets``: metric, subset, reference, value, n, n_scenes, replicates (numpy (R,)).

    ``samples``: metric, sample_id, scene_id, value, in sample order per metric. ``metadata``: provenance.
    """

    sets: pd.DataFrame
    samples: pd.DataFrame
    metadata: dict[str, Any]


def _schema() -> pa.Schema:
    text, real, whole = pa.string(), pa.float64(), pa.int64()
    fields = [("kind", text), ("metric", text), ("subset", text), ("reference", text), ("sample_id", text), ("scene_id", text)]
    fields += [("value", real), ("n", whole), ("n_scenes", whole)]
    return pa.schema([*fields, ("replicates", pa.list_(real))])


def _set_row(result: MetricResult) -> dict[str, Any]:
    return {
        "kind": SET,
        "metric": result.metric,
        "subset": result.subset,
        "reference": result.reference,
        "sample_id": "",
        "scene_id": "",
        "value": result.value,
        "n": result.n,
        "n_scenes": result.n_scenes,
        "replicates": np.asarray(result.replicates, dtype=np.float64),
    }


def _sample_rows(result: MetricResult, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    if result.subset != "all" or result.reference:
        return []
    return [
        {
            "kind": SAMPLE,
            "metric": result.metric,
            "subset": "all",
            "reference": "",
            "sample_id": sample.sample_id,
            "scene_id": sample.scene_id,
            "value": result.per_sample[sample.sample_id],
            "n": 1,
            "n_scenes": 1,
            "replicates": None,
        }
        for sample in samples
        if sample.sample_id in result.per_sample
    ]


def write_scores(path: Path, results: Sequence[MetricResult], samples: Sequence[Sample], metadata: Mapping[str, Any]) -> None:
    """Write the results of one run on one benchmark atomically. Raises ValueError when a metric comes twice."""
    keys = [(r.metric, r.subset, r.reference) for r in results]
    if len(set(keys)) != len(keys):
        raise ValueError(f"metrics come twice: {sorted({k for k in keys if keys.count(k) > 1})}")
    rows = [_set_row(r) for r in results] + [row for r in results for row in _sample_rows(r, samples)]
    content = json.dumps({"schema": SCHEMA_VERSION, **metadata}, sort_keys=True)
    write_parquet(path, pa.Table.from_pylist(rows, schema=_schema().with_metadata({"pipeline": content})))


def read_scores(path: Path) -> Scores:
    """Read a score file. Raise DataError when it is missing, unreadable, damaged or of another schema."""
    made_by = f"snakemake --cores all {path}"
    table = read_parquet(path, made_by=made_by)
    metadata = json.loads((table.schema.metadata or {}).get(b"pipeline", b"{}"))
    if metadata.get("schema") != SCHEMA_VERSION or not table.schema.equals(_schema()):
        raise DataError(f"{path} is not a score file of version {SCHEMA_VERSION}", fix=f"delete it and run: {made_by}")
    rows = table.to_pylist()
    set_columns = ["metric", "subset", "reference", "value", "n", "n_scenes"]
    sets = pd.DataFrame([{c: row[c] for c in set_columns} for row in rows if row["kind"] == SET], columns=set_columns)
    replicates = [np.asarray(row["replicates"], dtype=np.float64) for row in rows if row["kind"] == SET]
    sets["replicates"] = pd.Series(replicates, index=sets.index, dtype=object)
    columns = ["metric", "sample_id", "scene_id", "value"]
    found = pd.DataFrame([{c: row[c] for c in columns} for row in rows if row["kind"] == SAMPLE], columns=columns)
    return Scores(sets, found, metadata)
