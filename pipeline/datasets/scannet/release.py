"""Which scans of a release are prepared, and the official annotation files that belong to them.

The benchmarks ask about ScanNet's own training and validation scans: ScanRefer, Multi3DRefer, ScanQA train on train and are
reported on val; SQA3D's val and test questions are both about validation scans, and published numbers are those of test.
VSI-Bench has one file, whose ScanNet part is about validation scans; the rest is about other data sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import AnnotationError, DataError
from pipeline.core.options import did_you_mean
from pipeline.datasets.scannet.reading import AGAIN, read_text
from pipeline.scenes.conventions import checked_id

_PATTERNS: Mapping[str, tuple[str, ...]] = {
    "scanrefer": ("ScanRefer_filtered_{}.json",),
    "scan2cap": ("ScanRefer_filtered_{}.json",),
    "multi3drefer": ("multi3drefer_{}.json",),
    "scanqa": ("ScanQA_v1.0_{}.json",),
    "sqa3d": ("v1_balanced_questions_{}_scannetv2.json", "v1_balanced_sqa_annotations_{}_scannetv2.json"),
    "vsibench": ("test.jsonl",),
}
"""Scan2Cap's captions are ScanRefer's descriptions."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """``files``: benchmark -> split -> name -> bytes, unchanged; ``scans`` asked about per split."""

    files: dict[str, dict[str, dict[str, bytes]]]
    scans: dict[str, frozenset[str]]


def read_splits(lists: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """Scan ids per split, in the order of the official lists. DataError for unsafe or repeated ids and for empty lists."""
    splits: dict[str, tuple[str, ...]] = {}
    first: dict[str, str] = {}
    for split, path in lists.items():
        fix = f"get scannetv2_{split}.txt, name it with the option {split}_scenes, or set that to null"
        lines = [line.strip() for line in read_text(path, f"the list of the split {split}", fix=fix).splitlines()]
        ids = [checked_id(line, what="scan id", where=f"{path}, line {n}") for n, line in enumerate(lines, start=1) if line]
        for scan in ids:
            if scan in first:
                raise DataError(f"scan {scan} comes twice", where=f"{path} and {first[scan]}", fix="correct the lists")
            first[scan] = str(path)
        if not ids:
            raise DataError(f"the list of the split {split} is empty", where=str(path), fix=fix)
        splits[split] = tuple(ids)
    return splits


def choose_scans(
    splits: Mapping[str, tuple[str, ...]], only: Sequence[str], annotated: Mapping[str, frozenset[str]] | None
) -> dict[str, tuple[str, ...]]:
    """The scans to prepare, in the order of the lists. DataError for ids in ``only`` that no list has."""
    known = {scan for scans in splits.values() for scan in scans}
    for scan in only:
        if scan not in known:
            what = f"unknown scan {scan!r}{did_you_mean(scan, known)}"
            raise DataError(what, where="option `only`", allowed=f"the {len(known)} ids of the split lists")
    chosen = {
        split: tuple(
            scan for scan in scans if (not only or scan in only) and (annotated is None or scan in annotated.get(split, ()))
        )
        for split, scans in splits.items()
    }
    if not any(chosen.values()):
        raise DataError("no scan is left to prepare", where="options `scenes`, `only` and the split lists")
    return chosen


def annotation_names(
    benchmarks: Sequence[str], splits: Sequence[str], sqa3d_questions: str, scanqa_questions: str = "val"
) -> dict[str, dict[str, list[str]]]:
    """Official file names: {benchmark: {split of ScanNet: [name]}}; answers about ScanNet's split test were never released.

    ScanQA's two hidden sets take the place of val (``test_w_obj``) or are about the split test (``test_wo_obj``).
    """
    hidden = {"test_w_obj": "val", "test_wo_obj": "test"}.get(scanqa_questions)
    found: dict[str, dict[str, list[str]]] = {}
    for benchmark in benchmarks:
        for split in splits:
            if split == "val" or (split == "train" and benchmark != "vsibench"):
                official = sqa3d_questions if benchmark == "sqa3d" and split == "val" else split
                official = scanqa_questions if benchmark == "scanqa" and split == hidden else official
                found.setdefault(benchmark, {})[split] = [name.format(official) for name in _PATTERNS[benchmark]]
            elif benchmark == "scanqa" and split == hidden:
                found.setdefault(benchmark, {})[split] = [name.format(scanqa_questions) for name in _PATTERNS[benchmark]]
    return found


def read_annotations(
    folder: Path, names: Mapping[str, Mapping[str, Sequence[str]]], splits: Mapping[str, tuple[str, ...]]
) -> Annotations:
    """Read official files, unchanged, and which scans they ask about. AnnotationError when one is missing or of other scans."""
    read: dict[str, bytes] = {}
    scans: dict[str, set[str]] = {split: set() for split in splits}
    files: dict[str, dict[str, dict[str, bytes]]] = {}
    for benchmark, by_split in names.items():
        for split, listed in by_split.items():
            for name in listed:
                if name not in read:
                    read[name], found = _read(folder / name, benchmark)
                    _check_split(found, splits[split], split, folder / name)
                    scans[split] |= found
            files.setdefault(benchmark, {})[split] = {name: read[name] for name in listed}
    return Annotations(files, {split: frozenset(found) for split, found in scans.items()})


def _read(path: Path, benchmark: str) -> tuple[bytes, set[str]]:
    fix = f"get the official file of {benchmark}, or take {benchmark} out of the option `benchmarks`"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise AnnotationError(f"the annotation file {path.name} is missing", where=str(path), fix=fix) from None
    except OSError as error:
        raise AnnotationError(f"{path.name} cannot be read ({error.strerror})", where=str(path), fix=fix) from None
    try:
        lines = path.suffix == ".jsonl"
        content = [json.loads(line) for line in data.splitlines() if line.strip()] if lines else json.loads(data)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no text, or a number of thousands of digits
        raise AnnotationError(f"{path.name} is not valid JSON ({error})", where=str(path), fix=AGAIN) from None
    scans = {checked_id(scan, what="scene_id", where=str(path)) for scan in _scan_ids(content)}
    if not scans:
        raise AnnotationError(f"{path.name} asks about no scan of ScanNet", where=str(path), fix=fix)
    return data, scans


def _scan_ids(content: Any) -> Iterator[Any]:
    """Scans of the entries of a list, or of the lists of an object (SQA3D); of VSI-Bench only those of ScanNet."""
    lists = content.values() if isinstance(content, dict) else [content]
    for entries in lists:
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and "scene_id" in entry:
                yield entry["scene_id"]
            elif isinstance(entry, dict) and entry.get("dataset") == "scannet":
                yield entry.get("scene_name")


def _check_split(found: set[str], scans: Sequence[str], split: str, path: Path) -> None:
    others = sorted(found - set(scans))
    if others:
        listed = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        raise AnnotationError(
            f"{len(others)} of the {len(found)} scans that {path.name} asks about are not in the split {split}: {listed}",
            where=str(path),
            fix="put the file of the right split there, or correct the split lists",
        )
