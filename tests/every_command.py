"""The commands of a whole study in miniature, one per command, each with the output that it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.core import registry
from pipeline.core.options import validate
from pipeline.scenes.index import SceneIndex
from pipeline.study import paths
from pipeline.study.config import FeatureOptions
from pipeline.study.recipe import Recipe

TASKS = ("scanrefer", "scanqa")
RUN = {"dataset": "tiny_rooms", "backbone": "internvl_tiny", "teacher": "none", "recipe": "short", "seed": 0}
STEPS = {"referring_steps": 1, "reading_steps": 1, "word_steps": 1, "steps": 2, "checkpoint_steps": 1, "referring_per_step": 4}
BACKBONE = {"size": "tiny", "pretrain": {"dataset": "tiny_rooms", **STEPS, "word_views_per_step": 2, "views_per_step": 2}}
TEACHER = {
    "size": "rooms",
    "pretrain": {"dataset": "tiny_rooms", "masked_steps": 1, "masked_images": 2, "steps": 1, "images": 2},
}


@dataclass(frozen=True)
class Command:
    """A command with its arguments; ``out`` is the output, which ``to`` moves, ``more`` are names beside it."""

    command: str
    out: Path
    spec: Mapping[str, Any] | None = None
    rest: tuple[str, ...] = ()
    option: str = "--out"
    more: tuple[str, ...] = ()

    def to(self, out: Path) -> Command:
        return replace(self, out=out)

    def arguments(self) -> list[str]:
        spec = [] if self.spec is None else ["--spec", json.dumps(self.spec)]
        words = self.command.split()
        return [
            *words[:1],
            *spec,
            *words[1:],
            *self.rest,
            self.option,
            str(self.out),
            *(str(self.out.with_name(name)) for name in self.more),
        ]


def member(interface: Any, name: str, kind: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    found = validate(registry.member_class(interface, kind).options_model, dict(options or {}), where=name)
    return {"name": name, "kind": kind, "options": found.model_dump(mode="json")}


def study_commands(root: Path, scenes: SceneIndex) -> dict[str, Command]:
    """Verb -> command, in an order in which each finds what it needs, below ``root``."""
    tasks = {name: member("benchmarks", name, name, {"meteor": False} if name == "scanqa" else None) for name in TASKS}
    backbone = member("backbones", "internvl_tiny", "internvl", BACKBONE)
    geometry, vggt = member("teachers", "geometry", "geometry"), member("teachers", "vggt_rooms", "vggt", TEACHER)
    recipe = Recipe(steps=2, scenes_per_step=2, questions_per_scene=4, checkpoint_every_steps=1, train_on=list(TASKS))
    store = FeatureOptions().model_dump(mode="json", include={"dtype", "grid", "compression"})
    results, own = root / "results", ("--scenes", str(scenes.path))
    features, run = results / "features/manifest.json", root / paths.RUN_MANIFEST.format(**RUN)
    predictions, weights = root / paths.PREDICTIONS.format(**RUN), results / "backbones/manifest.json"
    scores = [root / paths.SCORES.format(**RUN, benchmark=name) for name in TASKS]
    table, summary = results / "tables/cell.parquet", results / "tables/summary.parquet"
    whole = {"run": RUN, "backbone": backbone, "recipe": recipe.model_dump(mode="json"), "benchmarks": tasks, "split": "test"}
    extract = {"dataset": "tiny_rooms", "teacher": geometry, "splits": ["train"], "shard": 0, "shards": 1, "store": store}
    scoring = {"run": RUN, "benchmarks": tasks, "split": "test", "bootstrap": {"replicates": 20, "seed": 0}, "code": ""}
    runs = [{"teacher": RUN["teacher"], "recipe": RUN["recipe"], "seed": 0}]
    facts = {name: {"task": "qa" if name == "scanqa" else "grounding"} for name in TASKS}
    cell = {"dataset": RUN["dataset"], "backbone": RUN["backbone"], "runs": runs, "benchmarks": facts, "level": 0.95}
    rooms = {"dataset": member("datasets", "few", "rooms", {"train": 2, "val": 0, "test": 0, "views": 2})}
    sizes = ("--grounding", "20", "--answers", "20", "--captions", "5", "--no-meteor")
    found = [
        Command("prepare", results / "scenes/few/manifest.json", rooms),
        Command("pretrain_teacher", results / "teachers/manifest.json", {"teacher": vggt}, own),
        Command("pretrain_backbone", weights, {"backbone": backbone}, own),
        Command("extract", features, extract, own),
        Command(
            "train", run, whole | RUN | {"backbone": backbone, "recipe": whole["recipe"]}, (*own, "--weights", str(weights))
        ),
        Command("predict", predictions, whole, (*own, "--run", str(run))),
        Command("score", scores[0], scoring, (*own, "--predictions", str(predictions)), more=(scores[1].name,)),
        Command("submission", results / "pred.json", None, ("--predictions", str(predictions))),
        Command("cell", table, cell, ("--runs", str(run), "--scores", *map(str, scores))),
        Command("summary", summary, None, ("--cells", str(table))),
        Command("report", results / "report/index.html", None, ("--summary", str(summary), "--runs", str(run))),
        Command("features inspect", results / "features.json", None, (str(features),), "--json"),
        Command("bench scoring", results / "bench.json", None, sizes),
    ]
    return {command.command.split()[0]: command for command in found}
