"""Aggregate the scores of all runs of one dataset x backbone into its table."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core.provenance import versions
from pipeline.tables.aggregate import cell_rows
from pipeline.tables.schema import write_table
from pipeline.tables.scores import load_cell

HELP = "aggregate the scores of one dataset x backbone into its table"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scores", type=Path, nargs="+", required=True, metavar="FILE", help="score files of all runs, one per benchmark"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="*",
        default=[],
        metavar="MANIFEST",
        help="manifests of these runs (default: in results/runs)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="results/tables/cells/{dataset}/{backbone}.parquet"
    )


def run(args: argparse.Namespace) -> None:
    cell = load_cell(args.spec, args.scores, args.runs)
    rows = cell_rows(cell)
    metadata = {
        "level": cell.level,
        "spec": cell.spec_digest,
        "packages": versions(),
    }
    write_table(args.out, rows, metadata)
    print(f"{args.out}: {len(rows)} rows of {len(cell.runs)} runs on {len(cell.benchmarks)} benchmarks")
