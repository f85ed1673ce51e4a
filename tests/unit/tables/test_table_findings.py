"""The two questions on tables small enough to check by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import t
from synthetic_study import blank_row

from pipeline.tables.findings import (
    LIFTS,
    LOWERS,
    NO_EVIDENCE,
    TEACHERS,
    Row,
    associations,
    lifts,
    main_association,
)
from pipeline.tables.markdown import association_sentences, lift_sentence

RESAMPLES = np.linspace(-1.7, 1.7, 50)
"""What scenes add on 50 resamples, to all runs alike where nothing else is said; variance 1."""


def row(backbone: str, teacher: str, benchmark: str, values: list[float], scenes: float = 1.0, **more: Any) -> Row:
    """A headline row; ``scenes``: how far resampled scenes move its runs."""
    drawn = [[value + scenes * z for z in RESAMPLES] for value in values]
    found = {"seeds": list(range(len(values))), "seed_values": values, "value": sum(values) / len(values), "replicates": drawn}
    return blank_row(backbone, teacher, benchmark, **(found | more))


def study(teacher: str, seeds: list[float], scenes: float = 0.0, backbone: str = "a", benchmark: str = "qa") -> list[Row]:
    """`none`, whose seeds reach 10, and a teacher that differs by ``seeds``, and by ``scenes`` per step of the resamples."""
    none = row(backbone, "none", benchmark, [10.0] * len(seeds), diff_to_none=None)
    return [none, row(backbone, teacher, benchmark, [10 + value for value in seeds], 1.0 + scenes)]


def test_a_lift_holds_scenes_and_seeds():
    (lift,) = lifts(study("geometry", [2.0, 2.2, 1.8], 0.1), "rooms", "3drs", 0.95)
    assert lift.overall.value == pytest.approx(2.0)
    scenes, seeds = 0.01 * float(np.var(RESAMPLES)) * 40 / 39, 0.04 / 3
    freedom = (scenes + seeds) ** 2 / (scenes**2 / 39 + seeds**2 / 2)
    assert lift.overall.low == pytest.approx(2.0 - t.ppf(0.975, freedom) * (scenes + seeds) ** 0.5)
    assert (lift.verdict, lift.up, lift.down, lift.cells) == (LIFTS, 1, 0, 1)
    for seeds, scenes in (([5.0, -2.0, 3.0], 0.1), ([2.0, 2.2, 1.8], 2.0)):  # either noise alone is enough
        (lift,) = lifts(study("geometry", seeds, scenes), "rooms", "3drs", 0.95)
        assert lift.verdict == NO_EVIDENCE
        assert "no evidence** that it changes" in lift_sentence(lift)
    (lower,) = lifts(study("shuffled", [-2.0, -2.2, -1.8], 0.1), "rooms", "3drs", 0.95)
    assert lower.verdict == LOWERS
    assert lift_sentence(lower).startswith("`shuffled` (a control) **lowers**")


def test_too_few_runs_or_scenes_are_no_evidence_and_say_so():
    few_scenes = [found | {"n_scenes": 6} for found in study("geometry", [2.0, 2.2, 1.8])]
    for rows in (study("geometry", [2.0]), few_scenes):
        (lift,) = lifts(rows, "rooms", "3drs", 0.95)
        assert lift.verdict == NO_EVIDENCE
        assert lift.overall.low is None
        assert "too few scenes or seeds for an interval" in lift_sentence(lift)


def test_pooling_over_backbones_and_benchmarks_and_against_a_control():
    effects = {("a", "qa"): [4.0, 2.0], ("a", "loc"): [0.0, 2.0], ("b", "qa"): [6.0, 6.0], ("b", "loc"): [2.0, 2.0]}
    rows = [found for (b, k), seeds in effects.items() for found in study("geometry", seeds, 0.1, b, k)]
    rows += [study("shuffled", [1.0, 1.0], 0.1, b, k)[1] for b, k in effects]
    geometry, shuffled, against = lifts(rows, "rooms", "3drs", 0.95)
    assert geometry.overall.value == 3.0
    assert geometry.overall.n == 4
    assert {name: found.value for name, found in geometry.by_benchmark.items()} == {"qa": 4.5, "loc": 1.5}
    assert (shuffled.teacher, shuffled.against) == ("shuffled", "none")
    assert (against.teacher, against.against, against.overall.value) == ("geometry", "shuffled", 2.0)


def correspondence_study() -> list[Row]:
    """Teacher moves both numbers up; seeds of one teacher move them apart."""
    rows = []
    for backbone, base in (("a", 0.0), ("b", 50.0)):
        for i, teacher in enumerate(("none", "geometry", "vggt", "flare", "pi3")):
            rows.append(row(backbone, teacher, "corr", [0.2 * i, 0.2 * i + 0.01], task="representation"))
            rows.append(row(backbone, teacher, "qa", [base + 10 * i + 1, base + 10 * i]))
    return rows


def test_correspondence_over_runs_pooled_and_within_teachers():
    found = associations(correspondence_study(), "rooms", "3drs", 0.95)
    assert [(a.backbone, a.within) for a in found] == [
        ("a", ""),
        ("b", ""),
        ("", "within backbones"),
        ("", "within backbone and teacher"),
    ]
    pooled = main_association(found)
    assert pooled is found[2]
    assert pooled.spearman.n == 20
    assert pooled.pearson.value > 0.99
    assert pooled.pearson.low is not None
    assert pooled.pearson.low > 0.9
    assert found[3].within == TEACHERS
    assert found[3].spearman.value == pytest.approx(-1.0)
    first, second = association_sentences(found)
    assert "**goes with** performance within backbones" in first
    assert "it turns round" in second


def test_fishers_interval_by_hand_and_too_few_runs():
    rows = []
    for teacher, x, y in zip("abcd", [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0], strict=True):
        rows += [row("a", teacher, "corr", [x], task="representation"), row("a", teacher, "qa", [y])]
    (found,) = associations(rows, "rooms", "3drs", 0.95)[:1]
    assert found.pearson.value == pytest.approx(0.8)
    # atanh(0.8) = 1.098612, one degree of freedom: half width 1.959964
    assert found.pearson.low == pytest.approx(-0.6971, abs=1e-3)
    few = [row("a", "none", "corr", [1.0, 2.0], task="representation"), row("a", "none", "qa", [1.0, 3.0])]
    sentences = association_sentences(associations(few, "rooms", "3drs", 0.95))
    assert sentences[0].startswith("Too few runs on a")


def test_nothing_measured_gives_no_sentence():
    assert main_association(associations([row("a", "none", "qa", [1.0])], "rooms", "3drs", 0.95)) is None
