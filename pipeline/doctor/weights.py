"""Released weights: there or not, how large, and whether their entries fit; faults are listed, never raised one by one."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.backbones.base import Backbone
from pipeline.core.errors import CheckpointError, PipelineError
from pipeline.core.faults import environment_fault
from pipeline.core.releases import WeightFile
from pipeline.doctor.report import CheckState, Need, WeightRow
from pipeline.doctor.selection import Selection
from pipeline.teachers.base import Teacher

FLOAT32_BYTES = 4


def weight_rows(selection: Selection) -> tuple[tuple[WeightRow, ...], tuple[Need, ...]]:
    """Return a row for every released file that the study needs, and the missing or faulty ones."""
    rows: list[WeightRow] = []
    needs: list[Need] = []
    for owner, member in _owners(selection):
        files = member.weight_files()
        absent = [file for file in files if not file.path.exists()]
        fault = _fault(member)
        if absent and isinstance(fault, CheckpointError):
            fault = None  # that a file is missing is said below; what else is wrong (a package not installed) must not wait
        others: CheckState = "not checked" if absent else "faulty" if fault else "complete"
        for file in files:
            state = "not there" if file in absent else others
            rows.append(WeightRow(owner, str(file.path), file.what, file.source, _bytes(file), state))
        needs += [Need("weights", f"{owner} needs {f.what}", str(f.path), f"get it from {f.source}", f.bytes) for f in absent]
        if fault:
            where = fault.where or ", ".join(str(file.path) for file in files)
            right = f"the right files are those of {files[0].source}" if files else ""
            needs.append(Need("weights", f"{owner}: {fault.what}", where, fault.fix or right, fault=True))
    return tuple(rows), tuple(needs)


def _owners(selection: Selection) -> Iterator[tuple[str, Teacher | Backbone]]:
    for name, teacher in selection.teachers.items():
        if teacher.has_features and not teacher.is_view:
            yield f"teachers.{name}", teacher
    for name, backbone in selection.backbones.items():
        yield f"backbones.{name}", backbone


def _fault(member: Teacher | Backbone) -> PipelineError | None:
    """Return what is wrong with weights that are there; a fault of the program keeps its traceback."""
    try:
        member.check_weights()
    except PipelineError as error:
        return error
    except OSError as error:
        fault = environment_fault(error)
        if fault is None:
            raise
        return fault
    return None


def _bytes(file: WeightFile) -> int | None:
    """Return the bytes on disk, or the published size of a missing file."""
    return size_on_disk(file.path) if file.path.exists() else file.bytes


def size_on_disk(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def parameters(files: tuple[WeightFile, ...], *, faulty: bool = False) -> int | None:
    """Return released parameters: counted in safetensors headers, else bytes / 4 (float32); None when nothing is known.

    Of files that are there but ``faulty`` only the published size counts.
    """
    counts = [_published(file) if faulty else _parameters(file) for file in files]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _published(file: WeightFile) -> int | None:
    return None if file.bytes is None else file.bytes // FLOAT32_BYTES


def _parameters(file: WeightFile) -> int | None:
    headers = sorted(file.path.glob("*.safetensors")) if file.path.is_dir() else [file.path]
    counts = [_header_count(path) for path in headers if path.suffix == ".safetensors" and path.is_file()]
    if counts:
        return sum(counts)
    pickled = sorted(file.path.glob("*.bin")) or [file.path]  # beside them may stand the same weights for other frameworks
    return sum(size_on_disk(path) for path in pickled) // FLOAT32_BYTES if file.path.exists() else _published(file)


def _header_count(path: Path) -> int:
    """Return the numbers in a safetensors file, from its JSON header; 0 when the file is damaged (check_weights reports it)."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100_000_000)))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError):
        return 0
    total = 0
    for shape in shapes:
        count = 1
        for side in shape:
            count *= side
        total += count
    return total
