"""summary.md: the table for a person, on a terminal and on a code host. Every number comes from the rows of the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.text_tables import render_table
from pipeline.tables.findings import (
    BASELINE,
    LIFTS,
    LOWERS,
    TEACHERS,
    Association,
    Estimate,
    Lift,
    associations,
    headline_rows,
    is_control,
    lifts,
    main_association,
    scene_correlations,
    unique,
)
from pipeline.tables.machines import machine_notes
from pipeline.tables.schema import REFERENCE, Row
from pipeline.tables.text import LEGEND, estimate_text, half_width, interval_text, intervals_sentence, mark, number

NO_SCORE = "No score: the questions of this split come without answers."


def summary_markdown(rows: Sequence[Row], metadata: Mapping[str, Any]) -> str:
    """Render the whole text. ``metadata``: of the summary table (``level``)."""
    level = float(metadata["level"])
    lines = ["# Summary", "", _preamble(rows, level), ""]
    notes = machine_notes(rows)
    lines += [*notes[:1], *([""] if notes else []), *(f"- {note}" for note in notes[1:]), *([""] if notes else [])]
    for dataset in unique(rows, "dataset"):
        for recipe in unique([row for row in rows if row["dataset"] == dataset], "recipe"):
            lines += [f"## {dataset} · recipe {recipe}", ""]
            if not headline_rows(rows, dataset, recipe):
                lines += [NO_SCORE, ""]
                continue
            lines += _headline_section(rows, dataset, recipe)
            lines += _difference_section(rows, dataset, recipe)
            lines += _reference_section(rows, dataset, recipe)
            lines += _lift_section(lifts(rows, dataset, recipe, level), level)
            lines += _association_section(rows, dataset, recipe, level)
    return "\n".join(lines).rstrip() + "\n"


def _preamble(rows: Sequence[Row], level: float) -> str:
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    return (
        f"{len(unique(rows, 'backbone'))} backbones x {len(unique(rows, 'teacher'))} teachers x {len(seeds)} seeds "
        f"({', '.join(map(str, seeds))}). Values are means over seeds. {intervals_sentence(level)}"
    )


def _by_key(rows: Sequence[Row]) -> dict[tuple[str, str, str], Row]:
    return {(row["backbone"], row["teacher"], row["benchmark"]): row for row in rows}


def _matrix(chosen: Sequence[Row], cell: Any, skip: str = "") -> list[str]:
    """Render backbone x teacher rows, benchmark columns, ``cell(row)`` texts; a backbone is named in its first row only."""
    table, benchmarks = _by_key(chosen), unique(chosen, "benchmark")
    body = []
    for backbone in unique(chosen, "backbone"):
        shown = ""
        for teacher in unique(chosen, "teacher"):
            found = [table.get((backbone, teacher, benchmark)) for benchmark in benchmarks]
            if teacher == skip or not any(found):
                continue
            body.append(["" if shown == backbone else backbone, teacher, *(cell(row) if row else "–" for row in found)])
            shown = backbone
    heads = [f"{name} {next(row['metric'] for row in chosen if row['benchmark'] == name)}" for name in benchmarks]
    return render_table(["backbone", "teacher", *heads], body)


def _headline_cell(row: Row) -> str:
    text = f"{number(row['value'], row['unit'])} {half_width(row)}".rstrip()
    if row["diff_to_none"] is not None:
        text += f" ({number(row['diff_to_none'], row['unit'], sign=True)}{mark(row)})"
    return text


def _headline_section(rows: Sequence[Row], dataset: str, recipe: str) -> list[str]:
    chosen = headline_rows(rows, dataset, recipe)
    counts = [
        f"{name} {row['n']} samples in {row['n_scenes']} scenes"
        for name in unique(chosen, "benchmark")
        for row in [next(row for row in chosen if row["benchmark"] == name)]
    ]
    return [
        f"Headline metrics: value ± half the width of its interval (difference to `{BASELINE}`).",
        "",
        *_matrix(chosen, _headline_cell),
        "",
        f"{LEGEND}.",
        f"Samples of one run: {'; '.join(counts)}.",
        "",
    ]


def _difference_cell(row: Row) -> str:
    value = number(row["diff_to_none"], row["unit"], sign=True)
    return f"{value} {interval_text(row['diff_low'], row['diff_high'], row['unit'])}{mark(row)}"


def _difference_section(rows: Sequence[Row], dataset: str, recipe: str) -> list[str]:
    chosen = headline_rows(rows, dataset, recipe)
    if not any(row["diff_to_none"] is not None for row in chosen):
        return []
    return [
        f"Paired differences to `{BASELINE}` (same scenes, same seeds) with intervals.",
        "",
        *_matrix(chosen, _difference_cell, skip=BASELINE),
        "",
    ]


def reference_body(rows: Sequence[Row], dataset: str, recipe: str) -> tuple[list[str], list[list[str]]]:
    """Return header and lines of the table of headline reference levels (no lines when there are none)."""
    heads = {row["benchmark"]: row["metric"] for row in headline_rows(rows, dataset, recipe)}
    chosen = [
        row
        for row in rows
        if row["row_type"] == REFERENCE
        and (row["dataset"], row["recipe"], row["subset"]) == (dataset, recipe, "all")
        and heads.get(row["benchmark"]) == row["metric"]
        and row["diff_to_none"] is not None
    ]
    backbones = unique(chosen, "backbone")
    body = []
    for benchmark, level in dict.fromkeys((row["benchmark"], row["reference"]) for row in chosen):
        mine = {row["backbone"]: row for row in chosen if (row["benchmark"], row["reference"]) == (benchmark, level)}
        first = next(iter(mine.values()))
        body.append([f"{benchmark} {first['metric']}", level.replace("_", " "), number(first["value"], first["unit"])])
        for backbone in backbones:
            body[-1].append(_above_cell(mine[backbone]) if backbone in mine else "–")
    return ["benchmark", "level", "value", *(f"{BASELINE} of {backbone}" for backbone in backbones)], body


def _reference_section(rows: Sequence[Row], dataset: str, recipe: str) -> list[str]:
    header, body = reference_body(rows, dataset, recipe)
    if not body:
        return []
    return [
        f"How far `{BASELINE}` is above levels that need no model (below an oracle), with intervals.",
        "",
        *render_table(header, body),
        "",
    ]


def _above_cell(row: Row) -> str:
    low, high = (None if row[end] is None else -row[end] for end in ("diff_high", "diff_low"))
    return f"{number(-row['diff_to_none'], row['unit'], sign=True)} {interval_text(low, high, row['unit'])}"


def _lift_section(found: Sequence[Lift], level: float) -> list[str]:
    lines = ["### Does a teacher lift the scores?", ""]
    if not found:
        return [*lines, f"Only `{BASELINE}` was run: nothing to compare.", ""]
    benchmarks = list(found[0].by_benchmark)
    body = [
        [
            f"{lift.teacher} − {lift.against}",
            estimate_text(lift.overall),
            f"{lift.up} up, {lift.down} down of {lift.cells}",
            lift.verdict,
            *(estimate_text(lift.by_benchmark[name]) for name in benchmarks),
        ]
        for lift in found
    ]
    header = ["difference", "mean", "cells", "verdict", *benchmarks]
    return [
        *lines,
        "Mean of the paired headline differences over backbones and benchmarks (correspondence apart), in points, with "
        f"{level:.0%} intervals over scenes and seeds. *Lifts* or *lowers*: the interval lies on one side of 0. Caption scores "
        "(x100) move in larger steps than percentages: see the columns of the single benchmarks.",
        "",
        *render_table(header, body, left=1),
        "",
        *(f"- {lift_sentence(lift)}" for lift in found),
        "",
    ]


def lift_sentence(lift: Lift) -> str:
    """Answer question 1 for one comparison in words."""
    what = f"`{lift.teacher}`" + (" (a control)" if is_control(lift.teacher) and lift.against == BASELINE else "")
    size = f"{estimate_text(lift.overall)} points on average"
    if lift.verdict in (LIFTS, LOWERS):
        return f"{what} **{lift.verdict}** the scores over `{lift.against}`: {size}."
    if lift.overall.low is None:
        return f"{what} against `{lift.against}`: {size}; too few scenes or seeds for an interval: **no evidence** either way."
    return f"{what}: **no evidence** that it changes the scores over `{lift.against}` ({size})."


def _association_section(rows: Sequence[Row], dataset: str, recipe: str, level: float) -> list[str]:
    found = associations(rows, dataset, recipe, level)
    lines = ["### Does correspondence go with performance?", ""]
    if not found or not any(association.points for association in found):
        return [*lines, "Not measured: the study has no correspondence benchmark or no other one.", ""]
    correlated = scene_correlations(rows, dataset, recipe)
    body = []
    for association in found:
        name = association.backbone or f"pooled {association.within}"
        scenes = "" if association.within == TEACHERS else _scene_cell(correlated, association.backbone)
        texts = [estimate_text(e, "rank correlation") for e in (association.spearman, association.pearson)]
        body.append([name, str(association.spearman.n), *texts, scenes])
    return [
        *lines,
        "Over runs (teacher x seed): correlation of a run's correspondence score with its mean headline score on the other "
        f"benchmarks, {level:.0%} intervals (Fisher's z; runs of one teacher count for less, as far as they are alike). Over "
        "scenes: mean rank correlation within single runs, with the share of teacher x benchmark cells whose interval "
        "is above / below 0.",
        "",
        *render_table(["backbone", "runs", "Spearman", "Pearson", "over scenes"], body, left=1),
        "",
        *(f"- {sentence}" for sentence in association_sentences(found)),
        "",
    ]


def _scene_cell(rows: Sequence[Row], backbone: str) -> str:
    mine = [row for row in rows if backbone in ("", row["backbone"]) and row["value"] is not None]
    if not mine:
        return "–"
    signs = [Estimate(0.0, row["ci_low"], row["ci_high"], 0).sign for row in mine]
    mean = number(sum(row["value"] for row in mine) / len(mine), "rank correlation", sign=True)
    return f"{mean} ({signs.count(1)} above / {signs.count(-1)} below of {len(signs)})"


def association_sentences(found: Sequence[Association]) -> list[str]:
    """Answer question 2 in words: over all runs, then among runs of the same teacher."""
    main = main_association(found)
    if main is None:
        return []
    where = f"on {main.backbone}" if main.backbone else main.within
    text = f"Spearman {estimate_text(main.spearman, 'rank correlation')} over {main.spearman.n} runs"
    if main.spearman.low is None:
        sentences = [f"Too few runs {where} to say whether correspondence goes with performance ({text})."]
    elif not main.spearman.sign:
        sentences = [f"**No evidence** {where} that correspondence goes with performance ({text})."]
    else:
        how = "**goes with**" if main.spearman.sign > 0 else "**goes against**"
        sentences = [f"Correspondence {how} performance {where} ({text}). This is association, not cause."]
    for association in found:
        if association.within == TEACHERS and association.spearman.low is not None:
            holds = {1: "it holds", -1: "it turns round", 0: "there is no evidence for it"}[association.spearman.sign]
            text = estimate_text(association.spearman, "rank correlation")
            sentences.append(
                f"Among runs of the same backbone and teacher, which differ by seed alone, {holds} (Spearman {text})."
            )
    return sentences
