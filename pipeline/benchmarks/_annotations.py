"""Reading of official annotation files: every entry is checked, every fault names the file and the entry.

Nothing is ever rewritten: flags that an official script writes back into the file are derived in memory here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline.benchmarks._matching import NoEntryError, Unmatched
from pipeline.core.errors import AnnotationError, DataError
from pipeline.core.options import Options
from pipeline.metrics.boxes import usable_boxes
from pipeline.scenes.conventions import checked_id
from pipeline.scenes.types import Sample, SceneObject, SceneRecord

if TYPE_CHECKING:
    from pipeline.benchmarks.base import Benchmark
    from pipeline.scenes.index import SceneIndex


class AnnotationOptions(Options):
    """Options that every benchmark with annotation files has."""

    skip_missing_scenes: bool = Field(
        False,
        description="Leave out entries about scenes that the prepared split does not have (counted) instead of refusing the "
        "file. Scores are then of a subset and not comparable with published ones.",
    )


class TextAnnotationOptions(AnnotationOptions):
    """Options of benchmarks whose answers are scored as captions."""

    meteor: bool = Field(True, description="Score METEOR too; false leaves it out (it needs a Java runtime).")


_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"</?(?:coord|ground|image|video|img|IMG_CONTEXT)>|<\|[^<>|\s]+\|>")
"""Texts that tokenizers of the backbones read as one token with a meaning: a box, an image, the end of a turn."""
_TEXT = "that is not blank, of whole characters and without control tokens such as <image> or <|im_end|>"
LONGEST_TEXT = 4000
"""Bytes (UTF-8) of the longest text; the longest of SQA3D's test questions has 206. A text never has more tokens than bytes,
and attention takes memory with the square of the longest text of a step: one description of 20,000 characters asked for 29 GB
in 2D pretraining (64 descriptions a step), one of this length takes 5 GB.
"""
_MOST_DIGITS = 18
_HUGE = 1e300
"""Whole numbers beyond this are no floating-point numbers; NaN and infinities fail the comparison too."""
_GET_AGAIN = "the file is truncated or damaged: get it again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One JSON object of an annotation file; ``where`` names file and position for messages."""

    content: dict[str, Any]
    where: str

    def fault(self, what: str, allowed: str | None = None) -> AnnotationError:
        """Return an error that names this entry."""
        return AnnotationError(what, where=self.where, allowed=allowed, fix="correct the file or download it again")

    def value(self, key: str) -> Any:
        """Return the value of a required key."""
        if key not in self.content:
            raise self.fault(f"key {key!r} is missing", allowed=f"keys here: {', '.join(sorted(map(str, self.content)))}")
        return self.content[key]

    def text(self, key: str) -> str:
        """Return a usable string."""
        value = self.value(key)
        if not _usable_text(value):
            raise self.fault(f"{key!r} is {value!r}", allowed=f"a string {_TEXT}")
        return self._short(key, str(value))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of usable strings (may be empty)."""
        value = self.value(key)
        if not isinstance(value, list) or not all(_usable_text(v) for v in value):
            raise self.fault(f"{key!r} is {value!r}", allowed=f"a list of strings, each {_TEXT}")
        return tuple(self._short(key, text) for text in value)

    def _short(self, key: str, text: str) -> str:
        size = len(text.encode())
        if size > LONGEST_TEXT:
            what = f"{key!r} has {size:,} bytes of text, which begin with {text[:40]!r}"
            raise self.fault(what, allowed=f"at most {LONGEST_TEXT:,} bytes (UTF-8)")
        return text

    def whole(self, key: str) -> int:
        """Return a whole number, also from a string of digits (ScanRefer writes object ids so)."""
        return self._whole(key, self.value(key))

    def wholes(self, key: str) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        value = self.value(key)
        if not isinstance(value, list):
            raise self.fault(f"{key!r} is {value!r}", allowed="a list of whole numbers")
        return tuple(self._whole(key, v) for v in value)

    def _whole(self, key: str, value: Any) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.fault(f"{key!r} is {value!r}", allowed="a whole number, 0 or more")
        return value

    def identifier(self, key: str) -> str:
        """Return an id (string or whole number) that is safe wherever ids are used."""
        value = self.value(key)
        try:
            return checked_id(str(value) if isinstance(value, int) else value, what=key, where=self.where)
        except DataError as error:
            raise self.fault(error.what, allowed=error.allowed) from None


def _usable_text(value: Any) -> bool:
    """Return whether a string has visible text in whole characters (JSON can spell half of one: a lone surrogate).

    A control token in it would end the user's turn or stand for a box, and the model would answer another question.
    """
    return isinstance(value, str) and bool(value.strip()) and not (_HALF_CHARACTER.search(value) or _CONTROL.search(value))


def read_text(path: Path) -> str:
    """Read an annotation file, with or without a byte order mark. Raise AnnotationError when it is not readable as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise AnnotationError(f"annotation file {path} is missing", fix="run the rule `prepare` again with -f") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f"annotation file {path} is not valid JSON ({error})", fix=_GET_AGAIN) from None
    except OSError as error:
        raise AnnotationError(f"annotation file {path} cannot be read ({error.strerror})") from None


def parse_json(text: str, where: str) -> Any:
    """Parse JSON. Raise AnnotationError when it is truncated or not JSON. ``where`` names the file (and line)."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(f"annotation file {where} is not valid JSON ({error})", fix=_GET_AGAIN) from None
    except (RecursionError, ValueError) as error:  # nested without end, or a number of thousands of digits
        raise AnnotationError(f"annotation file {where} is not usable JSON ({error})", fix=_GET_AGAIN) from None


def read_json(path: Path) -> Any:
    """Read a JSON file. Raise AnnotationError when it is missing, truncated or not JSON."""
    return parse_json(read_text(path), str(path))


def as_entries(content: Any, path: Path) -> list[Entry]:
    """Return a JSON list of objects as entries."""
    if not isinstance(content, list):
        raise AnnotationError(f"{path} does not hold a list of entries", allowed="the official file format")
    for number, item in enumerate(content):
        if not isinstance(item, dict):
            raise AnnotationError(f"entry {number} of {path} is not an object", allowed="the official file format")
    return [Entry(item, f"{path}, entry {number}") for number, item in enumerate(content)]


def read_rows(path: Path) -> list[Entry]:
    """Read the entries of a file that is a list of objects, or has one object a line (``.jsonl``)."""
    if path.suffix != ".jsonl":
        return as_entries(read_json(path), path)
    lines = [line for line in enumerate(read_text(path).split("\n"), start=1) if line[1].strip()]
    return as_entries([parse_json(text, f"{path}, line {number}") for number, text in lines], path)


def read_entries(paths: Iterable[Path]) -> list[Entry]:
    """Read the entries of files that are lists of objects (ScanRefer, Multi3DRefer, ScanQA), in file order."""
    return [entry for path in paths for entry in as_entries(read_json(path), path)]


def read_in_split(
    kind: str, benchmark: Benchmark, index: SceneIndex, split: str, named: Callable[[Entry], Sequence[int]]
) -> list[tuple[Entry, SceneRecord, tuple[SceneObject, ...]]]:
    """Read a split's annotation files of ``kind``: entries with their scenes and objects, in file order (see ``in_split``).

    ``named``: the ids of the objects that an entry names. Entries with one that the scene does not have are refused, or left
    out and counted where the dataset was prepared so (``skip_unmatched_annotations``).
    """
    entries = in_split(read_entries(index.annotation_files(kind, split)), benchmark, index, split)
    tables = {record.scene_id: {item.object_id: item for item in record.objects} for _, record in entries}
    kept: list[tuple[Entry, SceneRecord, tuple[SceneObject, ...]]] = []
    unmatched = Unmatched(len(entries))
    for entry, record in entries:
        ids, table = named(entry), tables[record.scene_id]
        missing = [i for i in ids if i not in table]
        if missing:
            unmatched.add(record.scene_id, entry.where, missing[0])
        else:
            kept.append((entry, record, tuple(table[i] for i in ids)))
    unmatched.missing_objects(benchmark, index, split, tables.get(unmatched.first, ()))
    _some_entry(kept, benchmark, index, split)
    return kept


def in_split(
    entries: Sequence[Entry], benchmark: Benchmark, index: SceneIndex, split: str, *, key: str = "scene_id"
) -> list[tuple[Entry, SceneRecord]]:
    """Return the entries with their scenes (named by ``key``), in file order.

    Entries about scenes that are not in the prepared split are refused, or left out and counted with the option
    ``skip_missing_scenes`` or the dataset's ``skip_unmatched_annotations``. Scene ids are checked before anything else uses
    them, and so are the boxes of the scenes. No entry at all is refused: nothing can be scored.
    """
    options = benchmark.options
    assert isinstance(options, AnnotationOptions)
    records = {record.scene_id: record for record in index.split(split)}
    kept: list[tuple[Entry, SceneRecord]] = []
    unmatched = Unmatched(len(entries))
    for entry in entries:
        scene_id = entry.identifier(key)
        if scene_id in records:
            kept.append((entry, records[scene_id]))
        else:
            unmatched.add(scene_id, entry.where)
    unmatched.missing_scenes(benchmark, index, split, skip=options.skip_missing_scenes or index.skip_unmatched)
    _some_entry(kept, benchmark, index, split)
    for record in {record.scene_id: record for _, record in kept}.values():
        check_objects(record, str(index.path))
    return kept


def _some_entry(kept: Sequence[Any], benchmark: Benchmark, index: SceneIndex, split: str) -> None:
    if not kept:
        raise NoEntryError(
            f"{benchmark.name} has no entry for split {split!r}: nothing can be asked or scored",
            where=str(index.path),
            fix="prepare scenes that the files are about, get the files again, or leave the benchmark out of the study",
        )


def check_objects(record: SceneRecord, where: str) -> None:
    """Raise DataError unless all boxes of a scene can be compared and every object has an id of its own.

    Others would give a wrong IoU, or the IoU with another object, silently.
    """
    fix = "correct the scene's objects or proposals and run the rule `prepare` again with -f"
    twice = [i for i, times in Counter(o.object_id for o in record.objects).items() if times > 1]
    if twice:
        raise DataError(f"object id {twice[0]} comes twice in scene {record.scene_id}", where=where, fix=fix)
    named = [(f"object {o.object_id}", o.box) for o in record.objects]
    named += [(f"proposal {i}", tuple(box)) for i, box in enumerate(() if record.proposals is None else record.proposals)]
    if all(_six_numbers(box) for _, box in named) and usable_boxes([box for _, box in named]).all():
        return
    name, wrong = next((n, b) for n, b in named if not _six_numbers(b) or not usable_boxes([b]).all())
    raise DataError(
        f"{name} of scene {record.scene_id} has the box {[float(v) if isinstance(v, float) else v for v in wrong]}",
        where=where,
        allowed="six finite numbers [cx,cy,cz,dx,dy,dz] in metres, sizes of 0 or more",
        fix=fix,
    )


def _six_numbers(box: Sequence[Any]) -> bool:
    return len(box) == 6 and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _HUGE for v in box)


def unique_samples(samples: Iterable[tuple[Sample, Entry]]) -> list[Sample]:
    """Return the samples after checking that no sample id occurs twice."""
    seen: dict[str, str] = {}
    result: list[Sample] = []
    for sample, entry in samples:
        if sample.sample_id in seen:
            raise entry.fault(f"{sample.sample_id!r} comes twice (first at {seen[sample.sample_id]})")
        seen[sample.sample_id] = entry.where
        result.append(sample)
    return result
