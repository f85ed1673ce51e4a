"""All annotation files of all splits, in the official formats; a pure function of the rooms in order and the options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.provenance import seed_for
from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.describe import multi3drefer, scanrefer
from pipeline.datasets._language.facts import RoomFacts
from pipeline.datasets._language.questions import scanqa
from pipeline.datasets._language.situated import sqa3d
from pipeline.datasets._language.view_questions import view_questions
from pipeline.datasets._language.vsi import vsibench
from pipeline.scenes.conventions import SPLITS

if TYPE_CHECKING:
    from pipeline.datasets._film.options import FilmedOptions

SQA3D_FIRST_ID = {"train": 100_000_000, "val": 200_000_000, "test": 300_000_000}
"""Question ids of SQA3D, and of VSI-Bench, are whole numbers; splits share none."""


def annotate(
    rooms: Sequence[tuple[str, RoomFacts]], options: FilmedOptions, source: str = "rooms"
) -> dict[str, dict[str, dict[str, Any]]]:
    """Benchmark -> split -> file name -> content, of (split, room) pairs. Answers are balanced over a whole split, by running
    counts in room order.

    ``source``: what VSI-Bench's field ``dataset`` says.
    """
    files: dict[str, dict[str, dict[str, Any]]] = {}
    for split in SPLITS:
        chosen = [facts for name, facts in rooms if name == split]
        for benchmark, made in _of_split(split, chosen, options, source).items() if chosen else ():
            files.setdefault(benchmark, {})[split] = made
    return files


def _balancer(split: str, benchmark: str, options: FilmedOptions) -> Balancer:
    return Balancer(np.random.default_rng(seed_for("rooms", "language", options.seed, split, benchmark)))


def _of_split(split: str, rooms: list[RoomFacts], options: FilmedOptions, source: str) -> dict[str, dict[str, Any]]:
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
    described = {f"ScanRefer_filtered_{split}.json": refer}
    files: dict[str, dict[str, Any]] = {
        "scanrefer": described,
        "scan2cap": described,
        "multi3drefer": {f"multi3drefer_{split}.json": multi},
        "scanqa": {f"ScanQA_v1.0_{split}.json": whole},
        "sqa3d": {
            f"v1_balanced_questions_{split}_scannetv2.json": {"questions": [q for q, _ in pairs]},
            f"v1_balanced_sqa_annotations_{split}_scannetv2.json": {"annotations": [a for _, a in pairs]},
        },
    }
    if options.vsibench_per_room:
        files["vsibench"] = {f"vsibench_{split}.json": _spatial(split, rooms, options, source)}
    if split == "train":
        files["view_qa"] = {f"view_qa_{split}.json": single}
    return files


def _spatial(split: str, rooms: list[RoomFacts], options: FilmedOptions, source: str) -> list[Any]:
    """VSI-Bench questions of a split; a balancer of their own, so that they change no other file."""
    balancer = _balancer(split, "vsibench", options)
    entries: list[Any] = []
    for room in rooms:
        entries += vsibench(room, balancer, options.vsibench_per_room, SQA3D_FIRST_ID[split] + len(entries), source)
    return entries
