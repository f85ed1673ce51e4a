"""The report as plain text, at most ``WIDTH`` columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from pipeline.doctor.report import Cost, DatasetRow, FeatureCost, MemberRow, Report, RunCost, WeightRow

WIDTH = 100
_NAME = 22
"""Columns of the name at the start of a line."""


def render(report: Report) -> str:
    """All sections, and the verdict last."""
    parts = [
        ("TEACHERS", [line for row in report.teachers for line in _teacher(row)]),
        ("BACKBONES", _backbones(report.backbones)),
        ("RELEASED WEIGHTS", _weights(report.weights)),
        ("DATASETS", [line for row in report.datasets for line in _dataset(row)]),
        ("COST", list(_cost(report.cost))),
        ("ENVIRONMENT", [line for row in report.environment for line in _environment(row.name, row.state, row.detail)]),
    ]
    lines = [line for title, body in parts for line in (title, *body, "")]
    return "\n".join([*lines, *_verdict(report)]) + "\n"


def _entry(name: str, *texts: str) -> list[str]:
    """A name and its texts, each wrapped beside it."""
    indent = " " * _NAME
    lines: list[str] = []
    for text in texts:
        if text:
            lines += textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    lines = lines or [indent]
    if len(name) > _NAME - 3:
        return [f"  {name}", *lines]
    return [f"  {name}".ljust(_NAME) + lines[0][_NAME:], *lines[1:]]


def _teacher(row: MemberRow) -> list[str]:
    tap = f"tap: {row.tap}" if row.tap else ""
    if not row.present:
        return _entry(row.name, row.origin)
    if row.source is not None:
        return _entry(row.name, f"{row.origin} (shape and terms as there)", tap)
    many = len(row.grids) > 1
    grids = [f"{rows}x{cols}" + (f" (images {size})" if many else "") for size, (rows, cols) in row.grids.items()]
    unknown = "shape known once data and checkpoint are there"
    shape = f"{', '.join(grids)} tokens of {row.dim} numbers" if grids else unknown
    depends = " and ".join(filter(None, ["set" if row.set_dependent else "", "order" if row.order_dependent else ""]))
    views = f"depends on {depends} of views" if depends else "every view by itself"
    return _entry(row.name, f"{row.origin}; {shape}; {views}", _terms(row, "features"), tap)


def _backbones(rows: tuple[MemberRow, ...]) -> list[str]:
    """Backbones of the same origin and terms share their lines."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row.origin, _terms(row, "models")), []).append(row.name)
    return [line for texts, names in groups.items() for line in _entry(", ".join(names), *texts)]


def _terms(row: MemberRow, what: str) -> str:
    use = f"{what} may be used commercially" if row.commercial else f"{what} NOT FOR COMMERCIAL USE"
    weights = "no weights" if row.weights_licence == "none" else f"weights {row.weights_licence}"
    return f"{use}; code {row.code_licence}; {weights}"


def _weights(rows: tuple[WeightRow, ...]) -> list[str]:
    if not rows:
        return ["  none are needed: nothing is to be downloaded"]
    return [line for row in rows for line in _weight(row)]


def _weight(row: WeightRow) -> list[str]:
    size = f", {bytes_text(row.bytes)}" if row.bytes is not None else ""
    state = {"not there": "MISSING", "faulty": "FAULTY", "complete": "names and shapes fit"}.get(row.state, row.state)
    return _entry(row.owner, f"{state}: {row.path}{size}", row.what, f"from: {row.source}" if row.state == "not there" else "")


def _dataset(row: DatasetRow) -> list[str]:
    notes = {"outdated": " (prepared for other options or code, will be made again)", "damaged": " (will be made again)"}
    head = f"{row.state}{notes.get(row.state, '')}; {row.role}; {row.licence}"
    lines = [head, _extent(row), _annotations(row)]
    lines += [f"{'MISSING' if s.state == 'not there' else 'found'}: {s.what}, {s.path}" for s in row.sources]
    return _entry(row.name, *lines)


def _extent(row: DatasetRow) -> str:
    if row.scenes is None or row.views is None or row.image_size is None:
        return "scenes and views are known after preparing"
    views = row.views
    parts = [f"{split} {count:,} scenes ({views.get(split, 0):,} views)" for split, count in row.scenes.items()]
    return f"{', '.join(parts)}, images {row.image_size[0]}x{row.image_size[1]}"


def _annotations(row: DatasetRow) -> str:
    if not row.annotations:
        return ""
    missing = [f"{name} ({split})" for name, splits in row.annotations.items() for split, there in splits.items() if not there]
    samples = ", ".join(f"{name} {count:,}" for name, count in row.samples.items())
    return f"to answer: {samples}" + (f"; annotations MISSING: {', '.join(missing)}" if missing else "; annotations complete")


def _cost(cost: Cost) -> Iterator[str]:
    done = sum(run.finished for run in cost.backbones)
    finished = f" ({done} finished)" if done else ""
    answers = f"{cost.predictions:,} answers" if cost.predictions is not None else "answers are counted once data is prepared"
    yield from _entry("runs", f"{cost.runs}{finished}, each on {cost.benchmarks} benchmarks; {answers}")
    for row in cost.features:
        yield from _feature_cost(row)
    for run in cost.backbones:
        if run.gpu_hours != 0:
            yield from _run_cost(run)
    unknown = f"; not in it: {', '.join(cost.unknown)}" if cost.unknown else ""
    yield from _entry("together", f"{hours_text(cost.gpu_hours)}, {bytes_text(cost.disk_bytes)} of disk to come{unknown}")
    yield from _entry("free here", f"{bytes_text(cost.free_disk_bytes)} of disk{_free_memory(cost)}")
    yield from _entry("assumed", *cost.assumptions)


def _feature_cost(row: FeatureCost) -> list[str]:
    amount = "bytes not known yet"
    if row.bytes is not None:
        most = "at most " if row.packed else ""
        amount = f"{most}{bytes_text(row.bytes)} for {row.scenes:,} scenes ({row.views:,} views)"
    stored = f", {bytes_text(row.stored_bytes)} stored already" if row.stored_bytes else ""
    return _entry(f"cache {row.teacher}", f"{amount}{stored}; {hours_text(row.gpu_hours)}")


def _run_cost(run: RunCost) -> list[str]:
    size = f"{run.parameters / 1e9:.2f} G parameters" if run.parameters else "size not known before it is there"
    disk = f"; models {bytes_text(run.bytes)}" if run.bytes else ""
    memory = f"; {bytes_text(run.memory_bytes)} of GPU memory to train" if run.memory_bytes else ""
    return _entry(f"runs {run.backbone}", f"{run.runs} runs, {size}; {hours_text(run.gpu_hours)}{disk}{memory}")


def _free_memory(cost: Cost) -> str:
    if cost.free_memory_bytes is None:
        return ""
    free = f", {bytes_text(cost.free_memory_bytes)} of memory"
    if not cost.load_bytes:
        return free
    short = "MORE THAN IS FREE" if cost.load_bytes > cost.free_memory_bytes else "fits"
    return f"{free}; the largest model takes {bytes_text(cost.load_bytes)} to load ({short})"


def _environment(name: str, state: str, detail: str) -> list[str]:
    return _entry(name, detail if state in ("ok", "note") else f"{state.upper()}: {detail}")


def _verdict(report: Report) -> Iterable[str]:
    if not report.missing:
        return ["READY", "  everything the study needs is there" + _start(report.config)]
    lines = [f"MISSING ({len(report.missing)})"]
    for number, need in enumerate(report.missing, start=1):
        place = f" [{need.where}]" if need.where else ""
        text = f"{number}. {need.what}{place}" + (f" -> {need.mend}" if need.mend else "")
        lines += textwrap.wrap(
            text, WIDTH, initial_indent="  ", subsequent_indent="     ", break_on_hyphens=False, break_long_words=False
        )
    return lines


def _start(files: tuple[str, ...]) -> str:
    """The command that starts it; Snakemake always lays other files over config.yaml."""
    if files[:1] != ("config.yaml",):
        return ""
    return ": snakemake --cores all" + (f" --configfile {' '.join(files)}" if files[1:] else "")


def bytes_text(count: int) -> str:
    """Bytes in decimal units: 4.2 MB, 5.0 GB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def hours_text(hours: float | None) -> str:
    """GPU hours, honest about zero and about not knowing."""
    if hours is None:
        return "GPU hours not known yet"
    if hours == 0:
        return "no GPU hours"
    if hours < 0.01:
        return "under 0.01 GPU hours"
    return f"about {hours:.2g} GPU hours" if hours < 10 else f"about {hours:,.0f} GPU hours"
