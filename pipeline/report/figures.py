"""Figures of the report: matplotlib without a display, one function per figure, each returns PNG bytes.

Colours are those of Okabe and Ito (safe for colour-blind readers); a teacher has the same colour in every figure, the
baseline is grey, controls are drawn hollow. Equal inputs give equal bytes: no dates in the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.plots import new_figure, styled
from pipeline.tables.derived import QUARTERS
from pipeline.tables.findings import BASELINE, Association, headline_rows, is_control, unique
from pipeline.tables.schema import Row
from pipeline.tables.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C6D31", "#5B4B8A")
GREY = "#6B7280"


def teacher_colors(teachers: Sequence[str]) -> dict[str, str]:
    """Return one colour per teacher, grey for the baseline."""
    others = [teacher for teacher in teachers if teacher != BASELINE]
    return {BASELINE: GREY} | {teacher: PALETTE[i % len(PALETTE)] for i, teacher in enumerate(others)}


@styled
def forest(rows: Sequence[Row], dataset: str, recipe: str) -> Figure:
    """Draw paired differences to `none` with intervals: a panel per benchmark, a line per backbone and teacher, seed ticks."""
    chosen = [row for row in headline_rows(rows, dataset, recipe) if row["diff_to_none"] is not None]
    benchmarks, backbones = unique(chosen, "benchmark"), unique(chosen, "backbone")
    teachers = unique(chosen, "teacher")
    colors = teacher_colors(teachers)
    places = {(b, t): -(i * (len(teachers) + 0.9) + j) for i, b in enumerate(backbones) for j, t in enumerate(teachers)}
    columns = min(3, len(benchmarks))
    lines = -(-len(benchmarks) // columns)
    figure, axes = new_figure(lines, columns, 3.6 * columns + 1.2, (0.27 * len(places) + 1.1) * lines, sharey=True)
    for axis, benchmark in zip(axes.flat, benchmarks, strict=False):
        mine = [row for row in chosen if row["benchmark"] == benchmark]
        for row in mine:
            _forest_line(axis, row, places[row["backbone"], row["teacher"]], colors[row["teacher"]])
        axis.axvline(0, color="#111827", linewidth=0.9)
        axis.grid(axis="x")
        axis.set_title(f"{benchmark} · {mine[0]['metric']} ({mine[0]['unit']})", loc="left")
        axis.set_yticks(list(places.values()), [teacher for _, teacher in places])
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(min(places.values()) - 0.7, 1.15)
        for backbone in backbones:
            top = places[backbone, teachers[0]] + 0.62
            frame = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            place = axis.get_yaxis_transform()
            axis.text(0.01, top, backbone, transform=place, fontsize=8.5, color=GREY, style="italic", va="center", bbox=frame)
    for axis in list(axes.flat)[len(benchmarks) :]:
        axis.set_visible(False)
    return figure


def _forest_line(axis: Axes, row: Row, place: float, color: str) -> None:
    face = "white" if is_control(row["teacher"]) else color
    if row["diff_low"] is not None:
        axis.plot([row["diff_low"], row["diff_high"]], [place, place], color=color, linewidth=2, solid_capstyle="butt")
    axis.plot([row["diff_to_none"]], [place], "o", color=color, markerfacecolor=face, markersize=6.5, zorder=3)
    axis.plot(
        row["diff_seed_values"], [place - 0.3] * len(row["diff_seed_values"]), "|", color=color, markersize=4.5, alpha=0.7
    )


@styled
def scatter(associations: Sequence[Association], teachers: Sequence[str]) -> Figure:
    """Draw correspondence against mean headline score, a panel per backbone and one pooled within backbones."""
    colors = teacher_colors(teachers)
    columns = min(3, len(associations))
    lines = -(-len(associations) // columns)
    figure, axes = new_figure(lines, columns, 3.5 * columns, 2.9 * lines + 0.4)
    for axis, found in zip(axes.flat, associations, strict=False):
        for teacher in teachers:
            mine = [point for point in found.points if point[1] == teacher]
            face = "white" if is_control(teacher) else colors[teacher]
            style: dict[str, Any] = {"color": colors[teacher], "markerfacecolor": face, "markersize": 7, "alpha": 0.9}
            axis.plot([point[3] for point in mine], [point[4] for point in mine], "o", label=teacher, **style)
        pooled = not found.backbone
        axis.set_title(found.backbone or f"pooled {found.within}", loc="left")
        axis.set_xlabel("correspondence" + (" (centred)" if pooled else " score"))
        axis.set_ylabel("mean headline score" + (" (centred)" if pooled else ""))
        text = f"Spearman {number(found.spearman.value, 'rank correlation', sign=True)}"
        axis.text(0.03, 0.97, text, transform=axis.transAxes, va="top", fontsize=9, color=GREY)
        axis.margins(0.14)
        axis.locator_params(axis="x", nbins=4)
        axis.grid()
    for axis in list(axes.flat)[len(associations) :]:
        axis.set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@styled
def quarters(rows: Sequence[Row], dataset: str, recipe: str) -> Figure:
    """Draw the headline score of scenes in each quarter by correspondence, mean over backbones, one line per teacher."""
    chosen = [row for row in rows if row["subset"] in QUARTERS and (row["dataset"], row["recipe"]) == (dataset, recipe)]
    benchmarks, teachers = unique(chosen, "benchmark"), unique(chosen, "teacher")
    colors = teacher_colors(teachers)
    figure, axes = new_figure(1, len(benchmarks), max(5.5, 2.35 * len(benchmarks) + 0.4), 3.0)
    for axis, benchmark in zip(axes.flat, benchmarks, strict=True):
        for teacher in teachers:
            mine = [row for row in chosen if (row["benchmark"], row["teacher"]) == (benchmark, teacher)]
            means = [np.mean([row["value"] for row in mine if row["subset"] == quarter]) for quarter in QUARTERS]
            face = "white" if is_control(teacher) else colors[teacher]
            axis.plot(range(4), means, "o-", color=colors[teacher], markerfacecolor=face, label=teacher, linewidth=1.6)
        axis.set_xticks(range(4), ["Q1", "Q2", "Q3", "Q4"])
        axis.set_title(f"{benchmark}\n{chosen_metric(chosen, benchmark)}", loc="left")
        axis.grid(axis="y")
        axis.margins(0.1)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def chosen_metric(rows: Sequence[Row], benchmark: str) -> str:
    """Return the metric of a benchmark's first row."""
    return str(next(row["metric"] for row in rows if row["benchmark"] == benchmark))


Curves = Mapping[tuple[str, str, int], Mapping[str, tuple[Sequence[float], Sequence[float]]]]
"""(backbone, teacher, seed) -> quantity -> (steps, values)."""


@styled
def training_curves(curves: Curves) -> Figure:
    """Draw smoothed training curves: a row per quantity, a column per backbone, a line per run."""
    backbones = list(dict.fromkeys(key[0] for key in curves))
    teachers = list(dict.fromkeys(key[1] for key in curves))
    quantities = list(dict.fromkeys(quantity for found in curves.values() for quantity in found))
    colors = teacher_colors(teachers)
    size = (3.5 * len(backbones) + 0.5, 2.15 * len(quantities) + 0.5)
    figure, axes = new_figure(len(quantities), len(backbones), *size, sharex=True, sharey="row")
    for (backbone, teacher, _), found in curves.items():
        for quantity, (steps, values) in found.items():
            axis = axes[quantities.index(quantity), backbones.index(backbone)]
            line = "--" if is_control(teacher) else "-"
            axis.plot(steps, smooth(np.asarray(values)), line, color=colors[teacher], linewidth=1.2, alpha=0.85, label=teacher)
    for i, quantity in enumerate(quantities):
        axes[i, 0].set_ylabel(quantity.replace("_", " "))
        for j, backbone in enumerate(backbones):
            axes[i, j].grid()
            if i == 0:
                axes[i, j].set_title(backbone, loc="left")
            if i == len(quantities) - 1:
                axes[i, j].set_xlabel("step")
    labelled = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(labelled))
    return figure


def smooth(values: NDArray[np.float64], share: float = 0.06) -> NDArray[np.float64]:
    """Return the centred running mean over ``share`` of the points (at least one); shorter windows at the ends."""
    half = max(0, int(len(values) * share) // 2)
    totals = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((totals[high] - totals[low]) / (high - low))
