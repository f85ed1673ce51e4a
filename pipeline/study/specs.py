"""The resolved specification of every cell: the options that a job gets, and what decides whether it reruns.

Each method returns canonical JSON. A rule passes it as its only parameter: it holds the cell's own options, with every
default filled in, and a digest of the code that the command and the cell's members refer to (closure.py). So an edit to one
teacher reruns that teacher's cells, a comment reruns nothing, and no job depends on config.yaml as a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.core import registry
from pipeline.core.provenance import canonical_json, digest
from pipeline.study import paths
from pipeline.study.closure import PACKAGE, WHOLE, Closure, Place
from pipeline.study.config import Member, StudyConfig

if TYPE_CHECKING:
    from pipeline.datasets.base import Needs

_TO_READ = ("score", "parse", "tune", "measure")
"""Methods of benchmarks that do not matter where only their samples are read."""


def _run(dataset: str, backbone: str, teacher: str, recipe: str, seed: str) -> dict[str, Any]:
    """Return what names a run: every step compares it with what it is given (finished.same_identity)."""
    return {"dataset": dataset, "backbone": backbone, "teacher": teacher, "recipe": recipe, "seed": int(seed)}


_Members = Mapping[registry.Interface, Iterable[Member]]


def _start(interface: registry.Interface, kind: str) -> Place:
    """Return where a member's code begins: its class; all of a plug-in's file."""
    path = registry.member_path(interface, kind)
    return path, registry.member_class(interface, kind).__name__ if path.is_relative_to(PACKAGE) else WHOLE


class Specs:
    """Specs and inputs of all cells of one configuration."""

    def __init__(self, config: StudyConfig):
        self.config = config
        self._closure = Closure(registry.folders("benchmarks"))
        self._codes: dict[tuple[Any, ...], str] = {}

    # ------------------------------------------------------------------ specs

    def prepare(self, dataset: str) -> str:
        member = self.config.datasets[dataset]
        spec = {"dataset": member, "code": self._code("prepare", {"datasets": [member]})}
        skipping = sorted({b["kind"] for b in self.config.benchmarks.values() if b["options"].get("skip_missing_scenes")})
        if skipping and not registry.member_class("datasets", member["kind"]).renders:  # who draws scenes asks of these
            spec["skip_missing_scenes"] = skipping
        return canonical_json(spec)

    def pretrain_teacher(self, teacher: str) -> str:
        member = self.config.teachers[teacher]
        return canonical_json({"teacher": member, "code": self._code("pretrain_teacher", {"teachers": [member]})})

    def pretrain_backbone(self, backbone: str) -> str:
        member = self.config.backbones[backbone]
        return canonical_json({"backbone": member, "code": self._code("pretrain_backbone", {"backbones": [member]}, _TO_READ)})

    def extract(self, dataset: str, teacher: str, shard: str) -> str:
        member, features = self.config.teachers[teacher], self.config.features
        return canonical_json(
            {
                "dataset": dataset,
                "teacher": member,
                "shard": int(shard.removeprefix("shard")),
                "shards": 1 if self.teacher(teacher).is_view else features.shards,
                "splits": features.splits,
                "store": features.model_dump(mode="json", include={"dtype", "grid", "compression"}),
                "code": self._code("extract", {"teachers": [member]}),
            }
        )

    def train(self, dataset: str, backbone: str, teacher: str, recipe: str, seed: str) -> str:
        member, chosen = self.config.backbones[backbone], self.config.recipes[recipe]
        tasks = {name: self.config.benchmarks[name] for name in chosen.train_on}
        return canonical_json(
            {
                "run": _run(dataset, backbone, teacher, recipe, seed),
                "dataset": dataset,
                "backbone": member,
                "teacher": teacher,
                "member_of_features": self._member_of_features(teacher),
                "recipe": chosen.model_dump(mode="json"),
                "seed": int(seed),
                "benchmarks": tasks,
                "code": self._code("train", {"backbones": [member], "benchmarks": tasks.values()}, _TO_READ),
            }
        )

    def predict(self, dataset: str, backbone: str, teacher: str, recipe: str, seed: str) -> str:
        member, tasks = self.config.backbones[backbone], self._benchmarks()
        return canonical_json(
            {
                "run": _run(dataset, backbone, teacher, recipe, seed),
                "backbone": member,
                "recipe": self.config.recipes[recipe].model_dump(mode="json"),
                "benchmarks": tasks,
                "split": self.config.evaluation.split,
                "code": self._code("predict", {"backbones": [member], "benchmarks": tasks.values()}, ("score",)),
            }
        )

    def score(self, dataset: str, backbone: str, teacher: str, recipe: str, seed: str) -> str:
        tasks = self._benchmarks()
        return canonical_json(
            {
                "run": _run(dataset, backbone, teacher, recipe, seed),
                "benchmarks": tasks,
                "split": self.config.evaluation.split,
                "bootstrap": self._bootstrap(),
                "code": self._code("score", {"benchmarks": tasks.values()}),
            }
        )

    def cell(self, dataset: str, backbone: str) -> str:
        return canonical_json(
            {
                "dataset": dataset,
                "backbone": backbone,
                "runs": [
                    {**run, "manifest": paths.RUN_MANIFEST.format(dataset=dataset, backbone=backbone, **run)}
                    for run in self.runs_of_cell()
                ],
                "benchmarks": self._benchmarks(),
                "level": self.config.evaluation.confidence,
                "made_with": self._made_with(backbone),
                "code": self._code("cell"),
            }
        )

    def _made_with(self, backbone: str) -> dict[str, Any]:
        """Options that the runs and scores of a cell must have: another study's may lie under the same names."""
        study, evaluation = self.config.study, self.config.evaluation
        return {
            "backbone": self.config.backbones[backbone],
            "recipes": {name: self.config.recipes[name].model_dump(mode="json") for name in study["recipes"]},
            "teachers": {name: self._member_of_features(name) for name in study["teachers"]},
            "scores": {"split": evaluation.split, "bootstrap": self._bootstrap()},
        }

    def _bootstrap(self) -> dict[str, int]:
        return {"replicates": self.config.evaluation.bootstrap_replicates, "seed": self.config.evaluation.seed}

    def summary(self) -> str:
        study = self.config.study
        cells = {
            paths.CELL.format(dataset=d, backbone=b): digest(json.loads(self.cell(d, b)))
            for d in study["datasets"]
            for b in study["backbones"]
        }
        return canonical_json(
            {"study": self._study(), "level": self.config.evaluation.confidence, "cells": cells, "code": self._code("summary")}
        )

    def report(self) -> str:
        tasks = self._benchmarks()
        shown = {"study": self._study(), "benchmarks": tasks, "split": self.config.evaluation.split}
        return canonical_json({**shown, "code": self._code("report", {"benchmarks": tasks.values()}, _TO_READ)})

    def _member_of_features(self, teacher: str) -> Member | None:
        """The config entry of the teacher that encodes: of a derived one the source's, of `none` nothing."""
        found = self.teacher(teacher)
        if not found.has_features:
            return None
        return self.config.teachers[found.source() if found.is_view else teacher]

    def _benchmarks(self) -> dict[str, Member]:
        return {name: self.config.benchmarks[name] for name in self.config.study["benchmarks"]}

    def _study(self) -> dict[str, Any]:
        return {key: list(values) for key, values in self.config.study.items()}

    # ------------------------------------------------------------------- code

    def _code(self, command: str, members: _Members | None = None, without: tuple[str, ...] = ()) -> str:
        """Digest of the code of a command and its members; methods named in ``without`` do not count of benchmarks."""
        kinds = sorted({(interface, member["kind"]) for interface, found in (members or {}).items() for member in found})
        key = (command, without, *kinds)
        if key not in self._codes:
            starts = [(PACKAGE / "commands" / f"{command}.py", "run"), *(_start(*kind) for kind in kinds)]
            self._codes[key] = self._closure.digest(starts, without)
        return self._codes[key]

    # ----------------------------------------------------------------- inputs

    def needs(self, dataset: str) -> Needs:
        """Threads, memory and time of preparing a dataset."""
        return registry.member_class("datasets", self.config.datasets[dataset]["kind"]).needs

    def teacher(self, teacher: str) -> Any:
        """An instance of the teacher member (light: no weights)."""
        return registry.create("teachers", self.config.teachers[teacher])

    def teacher_scenes(self, teacher: str) -> str:
        """Return the manifest of the scenes that a teacher trained in the workflow learns from."""
        return paths.SCENES.format(dataset=self.teacher(teacher).pretrain_dataset())

    def backbone_scenes(self, backbone: str) -> str:
        """Manifest of the scenes of a backbone's 2D pretraining."""
        member = registry.create("backbones", self.config.backbones[backbone])
        return paths.SCENES.format(dataset=member.pretrain_dataset())

    def teacher_weights(self, teacher: str) -> list[str]:
        """Return the manifest of the weights if the teacher is trained in the workflow, else nothing."""
        return [paths.TEACHER.format(teacher=teacher)] if self.teacher(teacher).trained_in_workflow else []

    def backbone_weights(self, backbone: str) -> list[str]:
        """Manifest of a backbone built here, else nothing (released checkpoint)."""
        member = registry.create("backbones", self.config.backbones[backbone])
        return [] if member.pretrain_dataset() is None else [paths.BACKBONE.format(backbone=backbone)]

    def feature_sources(self, dataset: str, teacher: str) -> list[str]:
        """Feature manifests that a derived teacher's view refers to."""
        found = self.teacher(teacher)
        return self.features(dataset, found.source()) if found.is_view else []

    def features(self, dataset: str, teacher: str) -> list[str]:
        """All feature manifests of a dataset x teacher ([] for `none`)."""
        found = self.teacher(teacher)
        if not found.has_features:
            return []
        shards = 1 if found.is_view else self.config.features.shards
        return [paths.FEATURES.format(dataset=dataset, teacher=teacher, shard=paths.shard_name(i)) for i in range(shards)]

    def runs_of_cell(self) -> list[dict[str, Any]]:
        """Teacher x recipe x seed of a cell, `none` first."""
        study = self.config.study
        return [
            {"teacher": teacher, "recipe": recipe, "seed": seed}
            for recipe in study["recipes"]
            for teacher in study["teachers"]
            for seed in study["seeds"]
        ]

    def cell_inputs(self, pattern: str, dataset: str, backbone: str) -> list[str]:
        """``pattern`` (paths.RUN_MANIFEST, paths.SCORES, ...) for every run of a cell, and every benchmark if it has one."""
        benchmarks = self.config.study["benchmarks"] if "{benchmark}" in pattern else (None,)
        return [
            pattern.format(dataset=dataset, backbone=backbone, benchmark=benchmark, **run)
            for run in self.runs_of_cell()
            for benchmark in benchmarks
        ]

    def cells(self) -> list[str]:
        """Tables of all dataset x backbone cells of the study."""
        study = self.config.study
        return [paths.CELL.format(dataset=d, backbone=b) for d in study["datasets"] for b in study["backbones"]]
