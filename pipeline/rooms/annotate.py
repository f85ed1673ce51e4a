"""All annotation files of all splits, in the official formats; a pure function of the rooms in order and the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.conventions import SPLITS
from pipeline.provenance import seed_for
from pipeline.rooms.balance import Balancer
from pipeline.rooms.describe import multi3drefer, scanrefer
from pipeline.rooms.facts import RoomFacts
from pipeline.rooms.questions import scanqa
from pipeline.rooms.situated import sqa3d
from pipeline.rooms.view_questions import view_questions
from pipeline.rooms.vsi import vsibench

if TYPE_CHECKING:
    from pipeline.datasets.rooms import RoomsOptions

SQA3D_FIRST_ID = {"train": 100_000_000, "val": 200_000_000, "test": 300_000_000}
"""Question ids of SQA3D, and of VSI-Bench, are whole numbers; splits share none."""


@dataclass(frozen=True, slots=True)
class AnnotationFiles:
    """``contents``: file name -> JSON content; ``by_benchmark``: {benchmark: {split: [path relative to the dataset]}}."""

    contents: dict[str, Any]
    by_benchmark: dict[str, dict[str, list[str]]]


def annotate(rooms: Sequence[tuple[str, RoomFacts]], options: RoomsOptions, source: str = "rooms") -> AnnotationFiles:
    """Annotations of (split, room) pairs. Answers are balanced over a whole split, by running counts in room order.

    ``source``: what VSI-Bench's field ``dataset`` says.
    """
    files = AnnotationFiles({}, {})
    for split in SPLITS:
        chosen = [facts for name, facts in rooms if name == split]
        if chosen:
            _annotate_split(files, split, chosen, options, source)
    return files


def _balancer(split: str, benchmark: str, options: RoomsOptions) -> Balancer:
    return Balancer(np.random.default_rng(seed_for("rooms", "language", options.seed, split, benchmark)))


def _annotate_split(files: AnnotationFiles, split: str, rooms: list[RoomFacts], options: RoomsOptions, source: str) -> None:
    balancers = {name: _balancer(split, name, options) for name in ("scanrefer", "multi3drefer", "scanqa", "sqa3d", "view_qa")}
    refer: list[Any] = []
    multi: list[Any] = []
    whole: list[Any] = []
    pairs: list[tuple[Any, Any]] = []
    single: list[Any] = []
    for room in rooms:
        refer += scanrefer(room, balancers["scanrefer"], options.described_objects, options.descriptions_per_object)
        multi += multi3drefer(room, balancers["multi3drefer"], options.multi3drefer_per_room)
        whole += scanqa(room, balancers["scanqa"], options.scanqa_per_room, split)
        pairs += sqa3d(room, balancers["sqa3d"], options.sqa3d_per_room, SQA3D_FIRST_ID[split] + len(pairs))
        if split == "train":
            single += view_questions(room, balancers["view_qa"], options.view_questions)
    _add(files, split, ("scanrefer", "scan2cap"), {f"ScanRefer_filtered_{split}.json": refer})
    _add(files, split, ("multi3drefer",), {f"multi3drefer_{split}.json": multi})
    _add(files, split, ("scanqa",), {f"ScanQA_v1.0_{split}.json": whole})
    _add(
        files,
        split,
        ("sqa3d",),
        {
            f"v1_balanced_questions_{split}_scannetv2.json": {"questions": [q for q, _ in pairs]},
            f"v1_balanced_sqa_annotations_{split}_scannetv2.json": {"annotations": [a for _, a in pairs]},
        },
    )
    if options.vsibench_per_room:
        _add(files, split, ("vsibench",), {f"vsibench_{split}.json": _spatial(split, rooms, options, source)})
    if split == "train":
        _add(files, split, ("view_qa",), {f"view_qa_{split}.json": single})


def _spatial(split: str, rooms: list[RoomFacts], options: RoomsOptions, source: str) -> list[Any]:
    """VSI-Bench questions of a split; a balancer of their own, so that they change no other file."""
    balancer = _balancer(split, "vsibench", options)
    entries: list[Any] = []
    for room in rooms:
        entries += vsibench(room, balancer, options.vsibench_per_room, SQA3D_FIRST_ID[split] + len(entries), source)
    return entries


def _add(files: AnnotationFiles, split: str, benchmarks: tuple[str, ...], contents: dict[str, Any]) -> None:
    files.contents.update(contents)
    for benchmark in benchmarks:
        files.by_benchmark.setdefault(benchmark, {})[split] = [f"annotations/{name}" for name in contents]
