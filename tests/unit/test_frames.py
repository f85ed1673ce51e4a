"""The one choice of frames."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.frames import choose_frames


def test_uniform_is_the_published_rule() -> None:
    assert choose_frames(100, 32) == tuple(int(i) for i in np.linspace(0, 99, 32).astype(int))
    assert choose_frames(10, 4) == (0, 3, 6, 9)
    assert choose_frames(5, 1) == (0,)


def test_uniform_never_repeats() -> None:
    assert choose_frames(3, 8) == (0, 1, 2)


def items(*lists: list[int]) -> list[np.ndarray]:
    return [np.array(one, dtype=np.int64) for one in lists]


def test_coverage_takes_what_adds_most() -> None:
    seen = items([1, 2], [1, 2, 3, 4], [5], [3, 4, 5, 6])
    assert choose_frames(4, 2, strategy="max_coverage", coverage=seen) == (1, 3)


def test_coverage_ignores_negative_items() -> None:
    seen = items([-1, -1, -1, -1], [1])
    assert choose_frames(2, 1, strategy="max_coverage", coverage=seen) == (1,)


def test_times_asks_for_a_second_view() -> None:
    seen = items([1, 2, 3], [1, 2, 3], [4], [4, 5])
    assert choose_frames(4, 2, strategy="max_coverage", coverage=seen) in ((0, 3), (1, 3))
    assert choose_frames(4, 2, strategy="max_coverage", coverage=seen, times=2) == (0, 1)


def test_early_end_and_full_count() -> None:
    seen = items([1, 2, 3, 4, 5, 6, 7, 8, 9], [10], [1], [2])
    assert choose_frames(4, 4, strategy="max_coverage", coverage=seen, stop_share=0.9) == (0,)
    assert choose_frames(4, 4, strategy="max_coverage", coverage=seen) == (0, 1, 2, 3)


def test_ties_follow_the_seed_only() -> None:
    seen = items(*([[1]] * 50))
    chosen = {seed: choose_frames(50, 3, strategy="max_coverage", coverage=seen, seed=seed) for seed in range(8)}
    assert chosen[3] == choose_frames(50, 3, strategy="max_coverage", coverage=seen, seed=3)
    assert len(set(chosen.values())) > 1
    assert all(list(c) == sorted(set(c)) and len(c) == 3 for c in chosen.values())


@pytest.mark.parametrize("arguments", [(0, 1), (3, 0)])
def test_nonsense_is_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot choose"):
        choose_frames(*arguments)


def test_coverage_must_belong_to_the_frames() -> None:
    with pytest.raises(ValueError, match="item lists"):
        choose_frames(3, 2, strategy="max_coverage", coverage=items([1]))
