"""Concatenate all cell tables into results/tables/summary.parquet, with a readable summary.md beside it, printed at the end."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pipeline.core.finished import same_identity
from pipeline.core.provenance import write_atomic
from pipeline.core.text_tables import fit_width
from pipeline.tables.machines import machine_notes
from pipeline.tables.markdown import summary_markdown
from pipeline.tables.schema import concatenate, read_table, write_table

HELP = "concatenate the cell tables and write and print the readable summary"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cells", type=Path, nargs="+", required=True, metavar="FILE", help="tables of all dataset x backbone cells"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="summary.parquet; the text goes to the same name with .md"
    )


def run(args: argparse.Namespace) -> None:
    tables = [(path, *read_table(path, made_by=f"snakemake --cores all {path}")) for path in args.cells]
    for path, _, made in tables:
        if path.as_posix() in args.spec.get("cells", {}):
            same_identity(made, {"spec": args.spec["cells"][path.as_posix()]}, path, "the cell of this study")
    rows, metadata = concatenate(tables)
    text = summary_markdown(rows, metadata)
    write_atomic(args.out.with_suffix(".md"), text)
    write_table(args.out, rows, metadata)
    for note in machine_notes(rows)[:1]:
        print(f"warning: {note}")
    print(fit_width(text, shutil.get_terminal_size((120, 24)).columns), end="")
    print(f"\n{args.out}: {len(rows)} rows; this text: {args.out.with_suffix('.md')}")
