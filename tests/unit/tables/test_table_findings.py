"""The two questions on tables small enough to check by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.tables.findings import (
    LIFTS,
    LOWERS,
    NO_EVIDENCE,
    TEACHERS,
    Row,
    associations,
    centred,
    lifts,
    main_association,
)
from pipeline.tables.markdown import association_sentences, lift_sentence
from pipeline.tables.schema import SCHEMA


def row(backbone: str, teacher: str, benchmark: str, values: list[float], **more: Any) -> Row:
    blank: Row = {name: [] if str(SCHEMA.field(name).type).startswith("list") else None for name in SCHEMA.names}
    fixed = {"dataset": "rooms", "recipe": "3drs", "subset": "all", "kind": "measured", "reference": "", "metric": "em"}
    named = {
        "backbone": backbone,
        "teacher": teacher,
        "benchmark": benchmark,
        "task": "qa",
        "unit": "percent",
        "headline": True,
    }
    seeds = {"seeds": list(range(len(values))), "seed_values": values, "value": sum(values) / len(values)}
    return blank | fixed | named | seeds | more


def difference(teacher: str, seeds: list[float], replicates: list[float], backbone: str = "a", benchmark: str = "qa") -> Row:
    mean = sum(seeds) / len(seeds)
    found = {"diff_to_none": mean, "diff_seed_values": seeds, "diff_replicates": replicates}
    return row(backbone, teacher, benchmark, [10 + value for value in seeds], **found)


def test_a_lift_needs_both_intervals():
    steady = difference("geometry", [2.0, 2.2, 1.8], [1.0, 2.0, 3.0])
    (lift,) = lifts([steady], "rooms", "3drs", 0.95)
    assert lift.over_scenes.value == pytest.approx(2.0)
    assert lift.over_scenes.low == pytest.approx(1.05)
    # t(0.975, 2) = 4.3027, standard error 0.2 / sqrt(3)
    assert lift.over_runs.low == pytest.approx(2.0 - 4.3027 * 0.2 / 3**0.5, abs=1e-4)
    assert (lift.verdict, lift.up, lift.down, lift.cells) == (LIFTS, 1, 0, 1)
    (noisy,) = lifts([difference("geometry", [5.0, -2.0, 3.0], [1.0, 2.0, 3.0])], "rooms", "3drs", 0.95)
    assert noisy.verdict == NO_EVIDENCE
    assert "interval over runs holds 0" in lift_sentence(noisy)
    (scenes,) = lifts([difference("geometry", [2.0, 2.2, 1.8], [-1.0, 2.0, 5.0])], "rooms", "3drs", 0.95)
    assert scenes.verdict == NO_EVIDENCE
    assert "interval over scenes holds 0" in lift_sentence(scenes)
    (lower,) = lifts([difference("shuffled", [-2.0, -2.2, -1.8], [-1.0, -2.0, -3.0])], "rooms", "3drs", 0.95)
    assert lower.verdict == LOWERS
    assert lift_sentence(lower).startswith("`shuffled` (a control) **lowers**")


def test_one_run_is_no_evidence_and_says_so():
    (lift,) = lifts([difference("geometry", [2.0], [1.0, 2.0, 3.0])], "rooms", "3drs", 0.95)
    assert lift.verdict == NO_EVIDENCE
    assert lift.over_runs.low is None
    assert "a single run" in lift_sentence(lift)


def test_pooling_over_backbones_and_benchmarks_and_against_a_control():
    rows = [
        difference("geometry", [4.0, 2.0], [3.0, 3.0], "a", "qa"),
        difference("geometry", [0.0, 2.0], [1.0, 1.0], "a", "loc"),
        difference("geometry", [6.0, 6.0], [6.0, 6.0], "b", "qa"),
        difference("geometry", [2.0, 2.0], [2.0, 2.0], "b", "loc"),
        *(difference("shuffled", [1.0, 1.0], [1.0, 1.0], b, k) for b in "ab" for k in ("qa", "loc")),
    ]
    geometry, shuffled, against = lifts(rows, "rooms", "3drs", 0.95)
    assert geometry.over_scenes.value == 3.0
    assert geometry.over_runs.n == 4  # backbone x seed: 2, 2, 4, 4
    assert geometry.over_runs.value == 3.0
    assert {name: found.value for name, found in geometry.by_benchmark.items()} == {"qa": 4.5, "loc": 1.5}
    assert (shuffled.teacher, shuffled.against) == ("shuffled", "none")
    assert (against.teacher, against.against, against.over_scenes.value) == ("geometry", "shuffled", 2.0)


def correspondence_study() -> list[Row]:
    """Teacher moves both numbers up; seeds of one teacher move them apart."""
    rows = []
    for backbone, base in (("a", 0.0), ("b", 50.0)):
        for i, teacher in enumerate(("none", "geometry", "vggt")):
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
    assert pooled.spearman.n == 12
    assert pooled.pearson.value > 0.99
    assert pooled.pearson.low is not None
    assert pooled.pearson.low > 0.9
    assert found[3].within == TEACHERS
    assert found[3].spearman.value == pytest.approx(-1.0)
    first, second = association_sentences(found)
    assert "**goes with** performance within backbones" in first
    assert "it turns round" in second


def test_centring_takes_each_groups_mean_off():
    points = [("a", "t", 0, 1.0, 10.0), ("a", "t", 1, 3.0, 30.0), ("b", "t", 0, 7.0, 5.0)]
    assert [point[3:] for point in centred(points, 1)] == [(-1.0, -10.0), (1.0, 10.0), (0.0, 0.0)]


def test_fishers_interval_by_hand_and_too_few_runs():
    rows = [
        row("a", "none", "corr", [1.0, 2.0, 3.0, 4.0], task="representation"),
        row("a", "none", "qa", [1.0, 3.0, 2.0, 4.0]),
    ]
    (found,) = associations(rows, "rooms", "3drs", 0.95)[:1]
    assert found.pearson.value == pytest.approx(0.8)
    # atanh(0.8) = 1.098612, one degree of freedom: half width 1.959964
    assert found.pearson.low == pytest.approx(-0.6971, abs=1e-3)
    few = [row("a", "none", "corr", [1.0, 2.0], task="representation"), row("a", "none", "qa", [1.0, 3.0])]
    sentences = association_sentences(associations(few, "rooms", "3drs", 0.95))
    assert sentences[0].startswith("Too few runs on a")


def test_nothing_measured_gives_no_sentence():
    assert main_association(associations([row("a", "none", "qa", [1.0])], "rooms", "3drs", 0.95)) is None
