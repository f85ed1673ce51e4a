"""The Arrow schema of results/tables/: one row per dataset, backbone, teacher, recipe, benchmark, metric and subset.

``COLUMNS`` is the documentation: every column's type and meaning also stand in the files' own field metadata. Files are
written byte for byte the same for equal rows: no times, no host, fixed compression.

A row's ``row_type`` says what its value is: ``measured`` (a run's metric), ``derived`` (computed here from measured per-sample
values: how scenes' scores go with scenes' correspondence, see derived.py) or ``reference`` (a level that no model was asked
for: best constant answer, chance; then ``teacher`` is empty, ``reference`` names the level, there are no seeds, and the
difference is level minus the baseline's metric).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core.errors import DataError
from pipeline.core.parquet import read_parquet, write_parquet

SCHEMA_VERSION = 2
MEASURED, DERIVED, REFERENCE = "measured", "derived", "reference"

_TEXT, _REAL, _WHOLE, _FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()
_REALS, _WHOLES, _TEXTS, _TABLE = pa.list_(_REAL), pa.list_(_WHOLE), pa.list_(_TEXT), pa.list_(pa.list_(_REAL))

COLUMNS: tuple[tuple[str, pa.DataType, bool, str], ...] = (
    ("dataset", _TEXT, False, "dataset name (config key)"),
    ("backbone", _TEXT, False, "backbone name (config key)"),
    ("teacher", _TEXT, False, "teacher name; `none` is the baseline; empty in reference rows"),
    ("recipe", _TEXT, False, "training recipe; in reference rows the recipe whose runs they are compared with"),
    ("benchmark", _TEXT, False, "benchmark name (config key)"),
    ("metric", _TEXT, False, "metric name of the benchmark"),
    ("subset", _TEXT, False, "subset of the samples, `all` for all of them"),
    ("row_type", _TEXT, False, "measured, derived or reference"),
    ("reference", _TEXT, False, "name of the reference level, else empty"),
    ("task", _TEXT, False, "grounding, caption, qa or representation"),
    ("unit", _TEXT, False, "percent, x100 (caption scores), cosine or rank correlation"),
    ("headline", _FLAG, False, "stands for its benchmark in overview tables"),
    ("value", _REAL, True, "mean over seeds of the metric over the whole set; null when not defined"),
    (
        "ci_low",
        _REAL,
        True,
        "lower end of the interval of `value` over scenes and seeds (level in the file metadata)",
    ),
    ("ci_high", _REAL, True, "upper end; both null below 10 scenes or with too few seeds (tables/uncertainty.py)"),
    ("n", _WHOLE, False, "samples behind the value (of one run)"),
    ("n_scenes", _WHOLE, False, "scenes of those samples, the unit that is resampled"),
    ("n_seeds", _WHOLE, False, "runs behind the value"),
    ("seeds", _WHOLES, False, "their training seeds"),
    ("seed_values", _REALS, False, "the metric of every seed, in the order of `seeds`"),
    ("seed_std", _REAL, True, "standard deviation over seeds (n-1); null below two seeds"),
    ("diff_to_none", _REAL, True, "mean over seeds of (this teacher - none), same seed, same scenes; null for none itself"),
    ("diff_low", _REAL, True, "lower end of its interval over scenes and seeds, the same ones on both sides; null as `ci_low`"),
    ("diff_high", _REAL, True, "upper end"),
    ("diff_seed_values", _REALS, False, "the difference of every seed, in the order of `seeds`; empty for none itself"),
    ("diff_p", _REAL, True, "two-sided p-value of the difference, from the same spread as its interval"),
    ("replicates", _TABLE, False, "per seed the metric on every resample of scenes; headline rows only (for pooling)"),
    ("run_digests", _TEXTS, False, "digest of every run's manifest.json, in the order of `seeds`"),
    ("machines", _TEXTS, False, "where every seed was trained and answered: CPU, GPU, versions that decide its last digits"),
    ("scores_digest", _TEXT, False, "digest over the score files behind the row"),
    ("code_version", _TEXT, False, "version of the pipeline package"),
    ("spec_digest", _TEXT, False, "digest of the cell's resolved specification, code included"),
)
KEY = ("dataset", "backbone", "teacher", "recipe", "benchmark", "metric", "subset", "row_type", "reference")
SCHEMA = pa.schema([pa.field(n, t, nullable, {"description": text}) for n, t, nullable, text in COLUMNS])

Row = dict[str, Any]


def write_table(path: Path, rows: Sequence[Row], metadata: Mapping[str, Any]) -> None:
    """Write rows atomically. ``metadata`` (JSON values) goes to the file's key-value metadata under ``pipeline``."""
    _refuse_duplicates(rows, where=str(path))
    content = json.dumps({"schema": SCHEMA_VERSION, **metadata}, sort_keys=True)
    write_parquet(path, pa.Table.from_pylist(list(rows), schema=SCHEMA.with_metadata({"pipeline": content})))


def read_table(path: Path, *, made_by: str) -> tuple[list[Row], dict[str, Any]]:
    """Read rows and metadata of a table. Raise DataError when it is missing, unreadable, damaged or of another schema."""
    table = read_parquet(path, made_by=made_by)
    metadata = json.loads((table.schema.metadata or {}).get(b"pipeline", b"{}"))
    if metadata.get("schema") != SCHEMA_VERSION or not table.schema.equals(SCHEMA):
        raise DataError(
            f"{path} has another table schema (version {metadata.get('schema')!r})",
            allowed=f"version {SCHEMA_VERSION} with columns {', '.join(SCHEMA.names)}",
            fix=made_by,
        )
    return table.to_pylist(), metadata


def row_key(row: Row) -> tuple[str, ...]:
    """Return what must be unique in a table."""
    return tuple(row[column] for column in KEY)


def _refuse_duplicates(rows: Iterable[Row], *, where: str) -> None:
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        key = row_key(row)
        if key in seen:
            named = ", ".join(f"{column}={value}" for column, value in zip(KEY, key, strict=True) if value)
            raise DataError(f"two rows for {named}", where=where, fix="give every cell once")
        seen.add(key)


def concatenate(tables: Sequence[tuple[Path, list[Row], dict[str, Any]]]) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of all cells in the given order, and their common metadata.

    Raise DataError when a row appears twice or when cells were made at different confidence levels.
    """
    if not tables:
        raise DataError("no cell tables given", fix="snakemake --cores all results/tables/summary.parquet")
    levels = {metadata["level"] for _, _, metadata in tables}
    if len(levels) > 1:
        raise DataError(
            f"cells have intervals of different levels: {sorted(levels)}",
            where=", ".join(str(path) for path, _, _ in tables),
            fix="snakemake --cores all results/tables/summary.parquet",
        )
    rows = [row for _, found, _ in tables for row in found]
    _refuse_duplicates(rows, where=", ".join(str(path) for path, _, _ in tables))
    return rows, {
        "level": levels.pop(),
        "cells": [
            {key: cell[key] for key in ("spec", "packages")}
            for _, _, metadata in tables
            for cell in metadata.get("cells", [metadata])  # a summary holds cells already
        ],
    }
