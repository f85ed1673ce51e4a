"""Write the report: one self-contained page with tables, figures and example scenes.

    python -m pipeline report --summary results/tables/summary.parquet --out results/report/index.html

Runs, predictions, scenes and features are optional; what is not given is left out of the page with a sentence.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core.provenance import file_digest
from pipeline.report.extras import curves_section, data_section, examples_section, features_section
from pipeline.report.page import build
from pipeline.scenes.index import SceneIndex
from pipeline.tables.schema import read_table

HELP = "write the HTML report of the study"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE", help="results/tables/summary.parquet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="results/report/index.html")
    texts = {
        "--scenes": "manifests of prepared datasets (example scenes, features)",
        "--runs": "manifests of fine-tuned runs (training curves)",
        "--predictions": "manifests of predictions (example scenes)",
        "--features": "manifests of teacher features, all shards (feature pictures)",
    }
    for name, text in texts.items():
        parser.add_argument(name, type=Path, nargs="*", default=[], metavar="MANIFEST", help=text)


def run(args: argparse.Namespace) -> None:
    rows, metadata = read_table(args.summary, made_by=f"snakemake --cores all {args.summary}")
    indices = [SceneIndex(path) for path in args.scenes]
    spec = args.spec
    extra = [
        data_section(indices),
        curves_section(args.runs),
        examples_section(indices, args.predictions, spec.get("benchmarks", {}), spec.get("split", "test")),
        features_section(indices, args.features),
    ]
    digests = {"summary table": file_digest(args.summary)} | {f"scenes {index.dataset}": index.digest for index in indices}
    build(args.out, rows, metadata, spec.get("study", {}), extra, digests)
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MB")
