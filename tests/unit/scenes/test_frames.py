"""The one choice of frames."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from pipeline.core.errors import ConfigError, FrameError
from pipeline.core.options import validate
from pipeline.scenes import frames
from pipeline.scenes.frames import FrameOptions, choose_frames, sample_frames, seen_voxels


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


def naive_greedy(seen: list[np.ndarray], count: int, ratio: float | None, seed: int) -> tuple[int, ...]:
    """The same rule with Python sets, frame by frame: what the vectorised one must equal."""
    order = [int(f) for f in np.random.default_rng(seed).permutation(len(seen))]
    sets = [{int(i) for i in one if i >= 0} for one in seen]
    everything, covered, chosen = set().union(*sets), set(), []
    while len(chosen) < count:
        best = max((f for f in order if f not in chosen), key=lambda f: len(sets[f] - covered))
        chosen.append(best)
        covered |= sets[best]
        if ratio is not None and len(covered) >= ratio * len(everything):
            break
    return tuple(sorted(chosen))


def walk_items(number: int, per_frame: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Frames of a walk: each sees most of what its neighbours see; ids are large and not consecutive, some are invalid."""
    names = rng.integers(0, 2**62, number * per_frame // 20 + per_frame * 2)
    starts = np.linspace(0, len(names) - per_frame * 2, number).astype(int)
    found = [names[s + rng.integers(0, per_frame * 2, per_frame)] for s in starts]
    return [np.where(rng.random(len(f)) < 0.05, -1, f) for f in found]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ratio", [None, 0.5, 0.9, 1.0])
def test_greedy_equals_python_sets(seed: int, ratio: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BATCH_ITEMS", 50)  # numbered in many batches
    rng = np.random.default_rng(seed)
    seen = walk_items(int(rng.integers(5, 60)), int(rng.integers(1, 40)), rng)
    if seed % 2:
        seen[1] = np.empty(0, dtype=np.int64)
        seen = [one % 17 for one in seen]  # few items: many ties
    options = FrameOptions(strategy="max_coverage", count=20, ratio=ratio, seed=seed)
    choice = sample_frames(len(seen), options, seen.__getitem__, where="here")
    assert choice.indices == naive_greedy(seen, min(20, len(seen)), ratio, seed)
    union = {int(i) for one in seen for i in one if i >= 0}
    covered = {int(i) for f in choice.indices for i in seen[f] if i >= 0}
    assert choice.items == len(union)
    assert choice.covered == pytest.approx(len(covered) / len(union))


def test_ratio_alone_decides_how_many() -> None:
    seen = items([1, 2, 3, 4, 5, 6, 7, 8, 9], [10], [1], [2])
    for ratio, expected in ((0.9, (0,)), (0.91, (0, 1)), (1.0, (0, 1))):
        options = FrameOptions(strategy="max_coverage", count=None, ratio=ratio)
        assert sample_frames(4, options, seen.__getitem__, where="here").indices == expected


def test_uniform_looks_at_no_pixels() -> None:
    def forbidden(_: int) -> np.ndarray:
        raise AssertionError("uniform asked what a frame sees")

    assert sample_frames(100, FrameOptions(count=4), forbidden, where="here").indices == (0, 33, 66, 99)
    assert sample_frames(5, FrameOptions(count=None), forbidden, where="here").indices == (0, 1, 2, 3, 4)
    assert sample_frames(5, FrameOptions(), forbidden, where="here").covered is None


def test_nothing_to_choose_from_is_an_error_that_names_the_scene() -> None:
    with pytest.raises(FrameError, match=r"(?s)no frame of the scene.*scene0"):
        sample_frames(0, FrameOptions(), items().__getitem__, where="scene0")
    blind = items([-1], [])
    with pytest.raises(FrameError, match=r"(?s)no frame has valid depth.*scene0.*uniform"):
        sample_frames(2, FrameOptions(strategy="max_coverage"), blind.__getitem__, where="scene0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "uniform", "ratio": 0.9}, "ratio belongs to"),
        ({"strategy": "max_coverage", "count": None}, "when to stop"),
        ({"strategy": "coverage"}, "max_coverage"),
        ({"count": 0}, "count"),
        ({"ratio": 1.5, "strategy": "max_coverage"}, "ratio"),
        ({"counts": 3}, "did you mean 'count'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(FrameOptions, options, where="datasets.x.frames")


def test_voxels_of_a_wall() -> None:
    """A wall 2 m in front of the camera, 2.1 m wide and 1.6 m high to the pixel, seen from (10, 20, 30)."""
    camera = np.array([[500.0, 0, 262.0], [0, 500.0, 200.0], [0, 0, 1]])
    depth = np.full((401, 525), 2.0, dtype=np.float32)
    depth[:, :100] = 0  # nothing measured there: 0.4 m less
    pose = np.eye(4)
    pose[:3, 3] = 10, 20, 30
    found = seen_voxels(depth, camera, pose, 0.1)
    x, y, z = ((found >> shift & (2**21 - 1)) - 2**20 for shift in (42, 21, 0))
    assert set(z) == {320}
    assert (x.min(), x.max()) == (100 - 6, 100 + 10)
    assert (y.min(), y.max()) == (200 - 8, 200 + 8)
    assert len(found) == 17 * 17, "without a gap"


@pytest.mark.benchmarks
def test_speed_of_greedy(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints how the vectorised greedy compares with Python sets, and its peak memory; asserts equality only."""
    seen = walk_items(600, 1500, np.random.default_rng(0))
    start = time.perf_counter()
    fast = choose_frames(len(seen), 16, strategy="max_coverage", coverage=seen)
    middle = time.perf_counter()
    slow = naive_greedy(seen, 16, None, 0)
    end = time.perf_counter()
    tracemalloc.start()
    choose_frames(len(seen), 16, strategy="max_coverage", coverage=seen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with capsys.disabled():
        print(
            f"\nmax_coverage, 16 of {len(seen)} frames x 1500 items: {1e3 * (middle - start):.0f} ms, "
            f"{(end - middle) / (middle - start):.0f} times as fast as Python sets, {peak / 2**20:.0f} MiB"
        )
    assert fast == slow


def test_points_too_far_for_the_voxels_name_the_scene():
    """A pose in millimetres: 21 bits an axis number 2 km of voxels of 1 mm."""
    pose = np.eye(4)
    pose[0, 3] = 5000.0

    def seen(_: int):
        return seen_voxels(np.ones((4, 4), dtype=np.float32), np.diag([4.0, 4.0, 1.0]), pose, 1e-3)

    with pytest.raises(FrameError, match=r"(?s)voxels of 0.001 m.*scan a.*frames\.voxel_m"):
        sample_frames(2, FrameOptions(strategy="max_coverage", count=1), seen, where="scan a")
