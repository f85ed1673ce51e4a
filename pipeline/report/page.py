"""The report page: what was run, what came out, how sure it is, and pictures to judge it by.

Numbers and verdicts come from the summary table through tables/findings.py, the same that summary.md prints. A part whose
inputs are not given is left out with a sentence (extras.py).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from pipeline import __version__
from pipeline.core.provenance import write_atomic
from pipeline.report import figures
from pipeline.report.html import PIECES, inline
from pipeline.report.template import PAGE
from pipeline.tables.derived import QUARTERS
from pipeline.tables.findings import BASELINE, Estimate, Lift, associations, headline_rows, lifts, unique
from pipeline.tables.machines import machine_notes
from pipeline.tables.markdown import NO_SCORE, association_sentences, lift_sentence, reference_body
from pipeline.tables.schema import Row
from pipeline.tables.text import LEGEND, estimate_text, half_width, interval_text, intervals_sentence, mark, number


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure by its file name (without suffix)."""

    name: str
    png: bytes
    alt: str
    caption: str


class Page:
    """Collects sections in order; figures are also written as PNG files beside the page."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts: list[Markup] = []
        self.sections: list[tuple[str, str]] = []

    def section(self, anchor: str, title: str) -> None:
        """Start a section that the contents line links to."""
        self.sections.append((anchor, title))
        self.parts.append(Markup('<h2 id="{}">{}</h2>').format(anchor, title))

    def subsection(self, title: str) -> None:
        """Append a smaller heading."""
        self.parts.append(Markup("<h3>{}</h3>").format(title))

    def paragraph(self, text: str, css: str = "") -> None:
        """Append a paragraph; `code` and **bold** are marked."""
        self.parts.append(PIECES.paragraph(text, css))

    def bullets(self, items: Sequence[str]) -> None:
        """Append a list of texts marked likewise."""
        self.parts.append(PIECES.bullets(items))

    def definitions(self, items: Sequence[tuple[str, str]]) -> None:
        """Append a list of names and texts marked likewise."""
        self.parts.append(PIECES.definitions(items))

    def table(self, header: Sequence[str], body: Sequence[tuple[Sequence[str], bool]], left: int) -> None:
        """Append a table; ``body``: (cells, starts a group); columns from ``left`` on are numbers."""
        self.parts.append(PIECES.table(header, body, left))

    def figure(self, found: Picture) -> None:
        """Append a figure, its image inside the page, and write its file. Images are drawn at 150 dpi and shown at 96."""
        write_atomic(self.folder / f"{found.name}.png", found.png)
        width = int.from_bytes(found.png[16:20], "big") * 96 // 150
        self.parts.append(PIECES.picture(base64.b64encode(found.png).decode(), width, found.alt, found.caption))


def brief(rows: Sequence[Row], level: float) -> list[str]:
    """Answer the two questions in a few sentences."""
    items = []
    for dataset, recipe in studies(rows):
        where = f"{dataset}, recipe {recipe}: " if len(studies(rows)) > 1 else ""
        items += [where + lift_sentence(lift) for lift in lifts(rows, dataset, recipe, level) if lift.against == BASELINE]
        items += [where + sentence for sentence in association_sentences(associations(rows, dataset, recipe, level))]
    return items


def studies(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return (dataset, recipe) pairs in order of appearance."""
    return list(dict.fromkeys((row["dataset"], row["recipe"]) for row in rows))


def study_section(page: Page, rows: Sequence[Row], metadata: Mapping[str, Any], study: Mapping[str, Sequence[Any]]) -> None:
    """Append what was run."""
    page.section("study", "What was run")
    runs = {(r["dataset"], r["backbone"], r["teacher"], r["recipe"], seed) for r in rows for seed in r["seeds"]}
    items = [(name, ", ".join(f"`{value}`" for value in values)) for name, values in study.items()]
    items += [
        ("runs", f"{len(runs)} fine-tuned models, {len(rows)} rows in the summary table"),
        ("intervals", intervals_sentence(metadata["level"])),
    ]
    page.definitions(items)


def headline_section(page: Page, rows: Sequence[Row], dataset: str, recipe: str) -> None:
    """Append the headline table of one dataset and recipe."""
    page.section(f"results-{dataset}-{recipe}", f"Results on {dataset}, recipe {recipe}")
    chosen = headline_rows(rows, dataset, recipe)
    if not chosen:
        page.paragraph(NO_SCORE)
        return
    benchmarks = unique(chosen, "benchmark")
    found = {(row["backbone"], row["teacher"], row["benchmark"]): row for row in chosen}
    heads = [_head(next(row for row in chosen if row["benchmark"] == name)) for name in benchmarks]
    body = []
    for backbone in unique(chosen, "backbone"):
        for i, teacher in enumerate(unique(chosen, "teacher")):
            cells = [found.get((backbone, teacher, name)) for name in benchmarks]
            name = inline(f"**{backbone}**") if i == 0 else ""
            body.append(([name, teacher, *(_cell(row) if row else "–" for row in cells)], i == 0))
    page.paragraph(
        f"Mean over seeds ± half the width of its interval; below it the paired difference to `{BASELINE}` with its interval. "
        f"{LEGEND}.",
        "note",
    )
    page.table(["backbone", "teacher", *heads], body, left=2)


def _head(row: Row) -> Markup:
    return Markup("{benchmark}<small>{metric}, {unit}</small><small>n = {n}, {n_scenes} scenes</small>").format(**row)


def _cell(row: Row) -> Markup:
    half = half_width(row)
    text = escape(number(row["value"], row["unit"])) + (Markup(" <small>{}</small>").format(half) if half else "")
    if row["diff_to_none"] is None:
        return text
    sign = Estimate(0.0, row["diff_low"], row["diff_high"], 0).sign
    difference = f"{number(row['diff_to_none'], row['unit'], sign=True)}{mark(row)}"
    bounds = interval_text(row["diff_low"], row["diff_high"], row["unit"])
    change = Markup('<span class="d"><span class="{}">{}</span> {}</span>')
    return text + change.format(("", "up", "down")[sign], difference, bounds)


def _lift_cells(lift: Lift) -> list[str]:
    return [
        inline(f"`{lift.teacher}` − `{lift.against}`"),
        inline(f"**{lift.verdict}**"),
        estimate_text(lift.overall),
        f"{lift.up} up, {lift.down} down of {lift.cells}",
    ]


def lift_section(page: Page, rows: Sequence[Row], dataset: str, recipe: str, level: float) -> None:
    """Append question 1 with its forest plot."""
    found = lifts(rows, dataset, recipe, level)
    page.subsection("Does a teacher lift the scores?")
    if not found:
        page.paragraph(f"Only `{BASELINE}` was run: nothing to compare.")
        return
    body = [(_lift_cells(lift), False) for lift in found]
    header = ["difference", "verdict", "mean in points, interval", "backbone x benchmark cells"]
    page.paragraph(
        "Mean of the paired headline differences over backbones and benchmarks (correspondence apart). A verdict "
        "needs its interval, over scenes and seeds, on one side of 0."
    )
    page.table(header, body, left=2)
    png = figures.forest(rows, dataset, recipe)
    caption = (
        f"Paired differences to `{BASELINE}` with {level:.0%} intervals over scenes and seeds; ticks below are the single "
        "seeds, hollow marks are controls."
    )
    page.figure(Picture(f"differences_{dataset}_{recipe}", png, "forest plot of paired differences", caption))


def reference_section(page: Page, rows: Sequence[Row], dataset: str, recipe: str) -> None:
    """Append how far the baseline is above levels without a model."""
    header, body = reference_body(rows, dataset, recipe)
    if body:
        page.subsection("Do the models know anything?")
        page.paragraph(
            f"How far `{BASELINE}` is above levels that need no model (below an oracle), intervals over scenes and seeds."
        )
        page.table(header, [(line, False) for line in body], left=2)


def association_section(page: Page, rows: Sequence[Row], dataset: str, recipe: str, level: float) -> None:
    """Append question 2 with its two figures."""
    page.subsection("Does correspondence go with performance?")
    found = [association for association in associations(rows, dataset, recipe, level) if association.points]
    if not found:
        page.paragraph("Not measured: the study has no correspondence benchmark or no other one.")
        return
    page.bullets(association_sentences(found))
    png = figures.scatter(found, unique(rows, "teacher"))
    caption = (
        "One point per run (teacher x seed): its correspondence score and its mean headline score on the other benchmarks."
    )
    page.figure(Picture(f"correspondence_{dataset}_{recipe}", png, "scatter of correspondence and performance", caption))
    if any(row["subset"] in QUARTERS and (row["dataset"], row["recipe"]) == (dataset, recipe) for row in rows):
        png = figures.quarters(rows, dataset, recipe)
        caption = (
            "Within runs: scores on the scenes of each quarter by the run's own correspondence score, mean over seeds "
            "and backbones. "
            "Scenes differ in more than correspondence (size, clutter), so a slope here is association as well."
        )
        page.figure(Picture(f"quarters_{dataset}_{recipe}", png, "scores by quarter of correspondence", caption))


def provenance_section(page: Page, rows: Sequence[Row], metadata: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Append versions and digests."""
    page.section("provenance", "Provenance")
    packages = metadata["cells"][0]["packages"]
    items = [("pipeline", __version__), ("packages", ", ".join(f"{name} {version}" for name, version in packages.items()))]
    items += [(name, f"`{value}`") for name, value in digests.items()]
    items += [
        (f"cell {d} / {b}", f"spec `{s}`")
        for d, b, s in dict.fromkeys((r["dataset"], r["backbone"], r["spec_digest"]) for r in rows)
    ]
    notes = machine_notes(rows)
    machines = dict.fromkeys(name for row in rows for name in row["machines"] if name)
    items += [("machine", name) for name in machines]
    if notes:
        page.paragraph(notes[0])
        page.bullets(notes[1:])
    page.definitions(items)
    page.paragraph("Digests of every run and score file stand in the rows of `results/tables/summary.parquet`.", "note")


Section = Callable[[Page], None]


def build(
    out: Path,
    rows: Sequence[Row],
    metadata: Mapping[str, Any],
    study: Mapping[str, Sequence[Any]],
    extra: Sequence[Section],
    digests: Mapping[str, str],
) -> None:
    """Write the page. ``extra``: sections from optional inputs, between results and provenance."""
    level = float(metadata["level"])
    page = Page(out.parent / "figures")
    study_section(page, rows, metadata, study)
    for dataset, recipe in studies(rows):
        headline_section(page, rows, dataset, recipe)
        lift_section(page, rows, dataset, recipe, level)
        reference_section(page, rows, dataset, recipe)
        association_section(page, rows, dataset, recipe, level)
    for section in extra:
        section(page)
    provenance_section(page, rows, metadata, digests)
    subtitle = "Supervising a multimodal LLM's visual tokens with a 3D teacher: scores, intervals and paired comparisons"
    html = PAGE.render(
        title="3DRS study",
        subtitle=subtitle,
        brief=brief(rows, level),
        sections=page.sections,
        parts=page.parts,
        pieces=PIECES,
    )
    write_atomic(out, html)
