"""The path grammar of results/, written once. Wildcards: {dataset} {teacher} {shard} {backbone} {recipe} {seed} {benchmark}."""

from __future__ import annotations

RUN = "{dataset}/{backbone}/{teacher}/{recipe}/seed{seed}"

SCENES = "results/scenes/{dataset}/manifest.json"
TEACHER = "results/teachers/{teacher}/manifest.json"
BACKBONE = "results/backbones/{backbone}/manifest.json"
FEATURES = "results/features/{dataset}/{teacher}/{shard}/manifest.json"
RUN_MANIFEST = f"results/runs/{RUN}/manifest.json"
PREDICTIONS = f"results/predictions/{RUN}/manifest.json"
SCORES = f"results/scores/{RUN}/{{benchmark}}.parquet"
CELL = "results/tables/cells/{dataset}/{backbone}.parquet"
SUMMARY = "results/tables/summary.parquet"
REPORT = "results/report/index.html"


def shard_name(index: int) -> str:
    """``shard0``, ``shard1``, ..."""
    return f"shard{index}"
