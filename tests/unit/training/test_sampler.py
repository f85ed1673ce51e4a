"""The sampler: balance, coverage, and independence of everything but dataset, seed and step."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.core.errors import DataError
from pipeline.scenes.types import Sample
from pipeline.training.sampler import QuestionSampler


def samples(scenes: int = 5, per_benchmark: dict[str, int] | None = None) -> dict[str, list[Sample]]:
    counts = per_benchmark or {"scanqa": 7, "scanrefer": 4, "sqa3d": 9}
    return {
        name: [Sample(f"s{s}|{name}|{i}", f"s{s}", name, "qa") for s in range(scenes) for i in range(count)]
        for name, count in counts.items()
    }


def sampler(found: dict[str, list[Sample]] | None = None, **options: object) -> QuestionSampler:
    settings = {"dataset": "rooms", "seed": 0, "scenes_per_step": 2, "questions_per_scene": 6, "balance": "tasks"}
    return QuestionSampler(found or samples(), **{**settings, **options})


def test_steps_can_be_planned_in_any_order() -> None:
    forward, backward = sampler(), sampler()
    plans = [forward.plan(step) for step in range(12)]
    assert [backward.plan(step) for step in reversed(range(12))] == plans[::-1]


def test_seed_and_dataset_change_the_order() -> None:
    plan = sampler().plan(3)
    assert sampler(seed=1).plan(3) != plan
    assert sampler(dataset="scannet").plan(3) != plan


def test_order_of_benchmarks_in_the_config_does_not_matter() -> None:
    found = samples()
    assert sampler(dict(reversed(found.items()))).plan(4) == sampler(found).plan(4)


def test_every_visit_is_balanced_over_tasks() -> None:
    for step in range(20):
        for visit in sampler().plan(step):
            assert len(visit.samples) == 6
            assert set(Counter(s.benchmark for s in visit.samples).values()) == {2}
            assert {s.scene_id for s in visit.samples} == {visit.scene_id}
            assert len({s.sample_id for s in visit.samples}) == 6


def test_every_scene_once_per_pass_and_every_sample_before_any_again() -> None:
    drawn = sampler()
    visits = [visit for step in range(20) for visit in drawn.plan(step)]
    for start in range(0, 40, 5):
        assert {v.scene_id for v in visits[start : start + 5]} == {f"s{i}" for i in range(5)}
    # after 8 visits of 2 questions a benchmark, 7 questions were all asked at least twice and none more than three times
    asked = Counter(s.sample_id for v in visits if v.scene_id == "s0" for s in v.samples if s.benchmark == "scanqa")
    assert len(asked) == 7
    assert set(asked.values()) <= {2, 3}


def test_scenes_with_few_questions_are_not_asked_twice_in_a_visit() -> None:
    drawn = sampler(samples(3, {"scanqa": 2, "scanrefer": 30}), questions_per_scene=12)
    for visit in drawn.plan(0):
        ids = [s.sample_id for s in visit.samples]
        assert len(ids) == len(set(ids)) == 8


def test_balance_samples_uses_every_sample_once_per_epoch() -> None:
    found = samples(5)
    drawn = sampler(found, balance="samples", scenes_per_step=1)
    visits_per_epoch = 5 * 4  # 20 questions a scene in visits of 6
    for epoch in range(2):
        visits = [drawn.plan(step)[0] for step in range(epoch * visits_per_epoch, (epoch + 1) * visits_per_epoch)]
        assert Counter(s.sample_id for v in visits for s in v.samples) == Counter(
            s.sample_id for f in found.values() for s in f
        )


def test_one_question_per_scene_is_the_papers_recipe() -> None:
    drawn = sampler(balance="samples", questions_per_scene=1, scenes_per_step=16)
    assert drawn.total == 100
    assert len({v.samples[0].sample_id for step in range(6) for v in drawn.plan(step)}) == 96


def test_no_samples_is_refused() -> None:
    with pytest.raises(DataError, match="no training samples"):
        sampler({"scanqa": []})
