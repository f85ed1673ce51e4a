"""The path grammar of results/, written once. Wildcards: {dataset} {teacher} {shard} {backbone} {recipe} {seed} {benchmark}."""

from __future__ import annotations

from pathlib import Path

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


def scenes_of(features: Path) -> Path | None:
    """The dataset's scene manifest for a shard's manifest that lies where FEATURES says, under any root; else None."""
    root = _root(features)
    return None if root is None else root / SCENES.format(dataset=features.parts[-4])


def teacher_of(features: Path) -> Path | None:
    """Return the manifest of the teacher, found the same way. Only teachers trained in the workflow have such a file."""
    root = _root(features)
    return None if root is None else root / TEACHER.format(teacher=features.parts[-3])


def _root(features: Path) -> Path | None:
    parts = features.parts
    return Path(*parts[:-6]) if len(parts) >= 6 and parts[-6:-4] == ("results", "features") else None
