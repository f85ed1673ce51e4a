"""The report as plain text: one screen, ``WIDTH`` columns wide, or as wide as the terminal is.

Every fact stands once: what is there beside its owner, what is missing, where it belongs and comes from in the last section.
"""

from __future__ import annotations

import textwrap

from pipeline.doctor.report import (
    Cost,
    DatasetRow,
    EnvironmentRow,
    FeatureCost,
    MemberRow,
    Need,
    Report,
    RunCost,
    WeightRow,
)

WIDTH = 100
WIDEST = 160
_NAME = 21
"""Columns of the name at the start of a line."""

Entries = list[tuple[str, tuple[str, ...]]]
"""Names, and the texts that stand beside each."""


def render(report: Report, width: int = WIDTH) -> str:
    """Render all sections, and the verdict last, in lines of at most ``width`` columns."""
    parts: list[tuple[str, Entries]] = [
        ("TEACHERS", [entry for row in report.teachers for entry in _teacher(row)]),
        ("BACKBONES", _backbones(report.backbones)),
        ("RELEASED WEIGHTS", _weights(report.weights)),
        ("DATASETS", [entry for row in report.datasets for entry in _dataset(row)]),
        ("COST", list(_cost(report.cost))),
        ("ENVIRONMENT", _environment(report.environment)),
    ]
    lines: list[str] = []
    for title, entries in parts:
        lines += [title, *(line for name, texts in entries for line in _wrapped(name, texts, width))]
    return "\n".join([*lines, *_verdict(report, width)]) + "\n"


def _entry(name: str, *texts: str) -> Entries:
    return [(name, texts)]


def _wrapped(name: str, texts: tuple[str, ...], width: int) -> list[str]:
    """Wrap each text beside the name."""
    indent = " " * _NAME
    lines: list[str] = []
    for text in texts:
        lines += textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    lines = lines or [indent]
    if len(name) > _NAME - 3:
        return [f"  {name}", *lines]
    return [f"  {name}".ljust(_NAME) + lines[0][_NAME:], *lines[1:]]


def _teacher(row: MemberRow) -> Entries:
    if not row.has_features:
        return _entry(row.name, row.origin)
    if row.source is not None:
        return _entry(row.name, f"{row.origin}; {row.feature_layer}" if row.feature_layer else row.origin)
    many = len(row.grids) > 1
    grids = [f"{rows}x{cols}" + (f" (images {size})" if many else "") for size, (rows, cols) in row.grids.items()]
    shape = f"{', '.join(grids)} tokens of {row.dim} numbers" if grids else "shape not known yet"
    depends = " and ".join(filter(None, ["set" if row.set_dependent else "", "order" if row.order_dependent else ""]))
    views = f"depends on {depends} of views" if depends else "every view by itself"
    feature_layer = f"; feature_layer: {row.feature_layer}" if row.feature_layer else ""
    return _entry(row.name, f"{row.origin}; {shape}; {views}{feature_layer}", _terms(row, "features"))


def _backbones(rows: tuple[MemberRow, ...]) -> Entries:
    """List backbones; those of the same origin and terms share their entry."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(f"{row.origin}; {_terms(row, 'models')}", []).append(row.name)
    return [(", ".join(names), (text,)) for text, names in groups.items()]


def _terms(row: MemberRow, what: str) -> str:
    use = f"{what}: any use" if row.commercial else f"{what}: NOT FOR COMMERCIAL USE"
    weights = "" if row.weights_licence == "none" else f"; weights {row.weights_licence}"
    return f"{use}; code {row.code_licence.split(' (')[0]}{weights}"


def _weights(rows: tuple[WeightRow, ...]) -> Entries:
    if not rows:
        return _entry("none", "nothing to download")
    missing = [row for row in rows if row.state == "not there"]
    entries = [entry for row in rows if row.state != "not there" for entry in _weight(row)]
    if missing:
        known = bytes_text(sum(row.bytes or 0 for row in missing))
        names = ", ".join(dict.fromkeys(row.owner.split(".")[-1] for row in missing))
        entries += _entry("MISSING", f"{names}: {known} to download, listed at the end")
    return entries


def _weight(row: WeightRow) -> Entries:
    size = f", {bytes_text(row.bytes)}" if row.bytes is not None else ""
    state = {"faulty": "FAULTY", "complete": "names and shapes fit"}.get(row.state, row.state)
    return _entry(row.owner.split(".")[-1], f"{state}{size}: {row.path}")


def _dataset(row: DatasetRow) -> Entries:
    notes = {"outdated": " (prepared for other options or code, will be made again)", "damaged": " (will be made again)"}
    head = f"{row.state}{notes.get(row.state, '')}; {row.role}; {row.licence}"
    return _entry(row.name, head, f"{_extent(row)}{_sources(row)}", _annotations(row), *row.notes)


def _sources(row: DatasetRow) -> str:
    if not row.sources:
        return ""
    there = sum(source.state != "not there" for source in row.sources)
    return f"; {there} of {len(row.sources)} source files are there"


def _extent(row: DatasetRow) -> str:
    if row.scenes is None or row.views is None or row.image_size is None:
        return "scenes and views are known after preparing"
    views = row.views
    parts = [f"{split} {count:,} scenes ({views.get(split, 0):,} views)" for split, count in row.scenes.items()]
    about = "at most about " if row.about else ""
    return f"{about}{', '.join(parts)}, images {row.image_size[0]}x{row.image_size[1]}"


def _annotations(row: DatasetRow) -> str:
    samples = ", ".join(f"{name} {count:,}" for name, count in row.samples.items())
    trained = f"; to train on: {sum(row.training.values()):,}" if row.training else ""
    if not row.annotations:
        return f"published numbers: to answer {samples}{trained}" if samples else ""
    missing = [f"{name} ({split})" for name, splits in row.annotations.items() for split, there in splits.items() if not there]
    state = f"annotations MISSING: {', '.join(missing)}" if missing else "annotations complete"
    return f"to answer: {samples}{trained}; {state}"


def _cost(cost: Cost) -> Entries:
    done = sum(run.finished for run in cost.backbones)
    finished = f" ({done} finished)" if done else ""
    answers = f"{cost.predictions:,} answers" if cost.predictions is not None else "answers are counted once data is prepared"
    entries = _entry("runs", f"{cost.runs}{finished}, each on {cost.benchmarks} benchmarks; {answers}")
    entries += [entry for row in cost.features for entry in _feature_cost(row)]
    entries += [entry for run in cost.backbones if run.gpu_hours != 0 for entry in _run_cost(run)]
    unknown = f"; not in it: {', '.join(cost.unknown)}" if cost.unknown else ""
    entries += _entry("together", f"{hours_text(cost.gpu_hours)}, {bytes_text(cost.disk_bytes)} of disk to come{unknown}")
    entries += _entry("free here", f"{bytes_text(cost.free_disk_bytes)} of disk{_free_memory(cost)}")
    return entries + _entry("assumed", "; ".join(cost.assumptions))


def _feature_cost(row: FeatureCost) -> Entries:
    amount = "bytes not known yet"
    if row.bytes is not None:
        most = "at most " if row.packed else ""
        amount = f"{most}{bytes_text(row.bytes)} for {row.scenes:,} scenes ({row.views:,} views)"
    stored = f", {bytes_text(row.stored_bytes)} stored already" if row.stored_bytes else ""
    return _entry(f"cache {row.teacher}", f"{amount}{stored}; {hours_text(row.gpu_hours)}")


def _run_cost(run: RunCost) -> Entries:
    size = f"{run.parameters / 1e9:.2f} G parameters" if run.parameters else "size not known before it is there"
    disk = f"; models {bytes_text(run.bytes)}" if run.bytes else ""
    memory = f"; {bytes_text(run.memory_bytes)} to train" if run.memory_bytes else ""
    return _entry(run.backbone, f"{run.runs} x {size}; {hours_text(run.gpu_hours)}{disk}{memory}")


def _free_memory(cost: Cost) -> str:
    if cost.free_memory_bytes is None:
        return ""
    free = f", {bytes_text(cost.free_memory_bytes)} of memory"
    if not cost.load_bytes:
        return free
    short = "MORE THAN IS FREE" if cost.load_bytes > cost.free_memory_bytes else "fits"
    return f"{free}; the largest model takes {bytes_text(cost.load_bytes)} ({short})"


def _environment(rows: tuple[EnvironmentRow, ...]) -> Entries:
    """Return what is as it should be in one paragraph, everything else by itself."""
    good = [row.detail if row.name == "packages" else f"{row.name}: {row.detail}" for row in rows if row.state == "ok"]
    entries = _entry("as tested", "; ".join(good)) if good else []
    for row in rows:
        if row.state != "ok":
            entries += _entry(row.name, row.detail if row.state == "note" else f"{row.state.upper()}: {row.detail}")
    return entries


def _verdict(report: Report, width: int) -> list[str]:
    if not report.missing:
        return ["READY", "  everything the study needs is there" + _start(report.config)]
    lines = [f"MISSING ({len(report.missing)})"]
    for number, need in enumerate(report.missing, start=1):
        text = f"{number}. {_need(need)}"
        lines += textwrap.wrap(
            text, width, initial_indent="  ", subsequent_indent="     ", break_on_hyphens=False, break_long_words=False
        )
    return lines


def _need(need: Need) -> str:
    """Return what to get, where to put it, how large it is and where it comes from; or the fault and what fixes it."""
    origin = need.fix.removeprefix("get it ")
    if origin != need.fix and need.area == "weights" and not need.fault:
        size = f", {bytes_text(need.bytes)}" if need.bytes is not None else ""
        return f"{need.where}{size}, {origin}"
    if origin != need.fix and not need.fault:
        return f"{need.what.replace(' needs ', ': ', 1)} [{need.where}] {origin}"
    return need.what + (f" [{need.where}]" if need.where else "") + (f" -> {need.fix}" if need.fix else "")


def _start(files: tuple[str, ...]) -> str:
    """Return the command that starts the study; Snakemake always merges other files over config.yaml."""
    if files[:1] != ("config.yaml",):
        return ""
    return ": snakemake --cores all" + (f" --configfile {' '.join(files)}" if files[1:] else "")


def bytes_text(count: int) -> str:
    """Format bytes in decimal units: 4.2 MB, 5.0 GB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def hours_text(hours: float | None) -> str:
    """Format GPU hours, distinguishing zero from unknown."""
    if hours is None:
        return "GPU hours not known yet"
    if hours == 0:
        return "no GPU hours"
    if hours < 0.01:
        return "under 0.01 GPU hours"
    return f"about {hours:.2g} GPU hours" if hours < 10 else f"about {hours:,.0f} GPU hours"
