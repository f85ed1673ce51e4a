"""How often an interval holds the truth: made-up studies whose truth is known, drawn again and again.

The old interval, the middle 95 % of resampled scenes, stands beside it: it knows nothing of seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from synthetic_study import blank_row

from pipeline.metrics import captions
from pipeline.metrics.stats import corpus_replicates, mean_replicates, scene_weights
from pipeline.tables.derived import derived_scores
from pipeline.tables.findings import associations, main_association
from pipeline.tables.scores import SampleScores
from pipeline.tables.uncertainty import Noise, paired_noise, seed_noise, spread, to_fisher

Reals = np.ndarray
LEVEL = 0.95
HONEST = (0.93, 0.985)
"""Coverage of a nominal 95 %; the binomial noise of 500 studies is 1 %."""


class Tally:
    """Counts how often intervals hold the truth; the truth is the mean of the estimates of all studies when not given."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float, float]] = []
        self.old: list[tuple[float, float]] = []

    def add(self, values: Reals, drawn: Reals, scenes: int, noise: Noise) -> None:
        """One study's K seeds: values (K,), replicates (K,R)."""
        sure = spread([values], [drawn], scenes, [noise])
        assert sure is not None
        self.ends.append((float(values.mean()), *sure.interval(float(values.mean()), LEVEL)))
        low, high = np.nanquantile(drawn.mean(0), [0.025, 0.975])
        self.old.append((float(low), float(high)))

    def coverage(self, truth: float | None = None) -> tuple[float, float]:
        """Shares of the new and of the old intervals that hold the truth."""
        truth = float(np.mean([value for value, _, _ in self.ends])) if truth is None else truth
        new = np.mean([low <= truth <= high for _, low, high in self.ends])
        return float(new), float(np.mean([low <= truth <= high for low, high in self.old]))


def answers(generator: np.random.Generator, index: Reals, noise: tuple[float, float, float], shape: tuple[int, int]) -> Reals:
    """Right or wrong (T,K,n): chances move with the scene, with the seed (alike for all teachers), and with the run."""
    of_scene, of_seed, of_run = noise
    teachers, seeds = shape
    chance = 0.4 + of_scene * generator.normal(size=index.max() + 1)[index]
    chance = chance + of_seed * generator.normal(size=(1, seeds, 1)) + of_run * generator.normal(size=(teachers, seeds, 1))
    return 100.0 * (generator.random((teachers, seeds, len(index))) < np.clip(chance, 0, 1))


def f1(sums: Reals) -> Reals:
    """A set metric that is no mean: 2 tp / (predicted + meant)."""
    return 200 * sums[:, 0] / np.maximum(sums[:, 1] + sums[:, 2], 1)


def f1_statistics(right: Reals, index: Reals) -> Reals:
    """(n,3): true positives, predicted and meant boxes of each question."""
    meant = 1 + index % 3
    return np.stack([right / 100 * meant, meant + 1, meant], axis=1)


def metric(name: str, index: Reals, weights: Reals) -> Callable[[Reals], tuple[float, Reals]]:
    """Value and replicates of one run's answers (n,)."""
    if name == "mean":
        return lambda right: (float(right.mean()), mean_replicates(right, index, weights))

    def of_sums(right: Reals) -> tuple[float, Reals]:
        table = f1_statistics(right, index)
        return float(f1(table.sum(0, keepdims=True))[0]), corpus_replicates(table, index, weights, f1)

    return of_sums


@pytest.mark.parametrize(("teachers", "seeds", "scenes"), [(4, 2, 80), (4, 3, 40), (2, 2, 80)])
@pytest.mark.parametrize(
    ("name", "noise"),
    [("mean", (0.1, 0.0, 0.03)), ("mean", (0.1, 0.02, 0.01)), ("mean", (0.1, 0.0, 0.0)), ("f1", (0.1, 0.0, 0.03))],
    ids=["runs differ", "seeds differ", "answers differ", "f1"],
)
def test_scores_and_paired_differences_hold_scenes_and_seeds(teachers, seeds, scenes, name, noise):
    generator = np.random.default_rng([teachers, seeds, scenes])
    index = np.repeat(np.arange(scenes), generator.integers(3, 9, scenes))
    run = metric(name, index, scene_weights([f"s{i:03d}" for i in range(scenes)], 100, 0))
    value, difference = Tally(), Tally()
    for _ in range(500):
        found = [[run(right) for right in row] for row in answers(generator, index, noise, (teachers, seeds))]
        table = np.array([[score for score, _ in row] for row in found])
        drawn = np.array([[replicates for _, replicates in row] for row in found])
        value.add(table[1], drawn[1], scenes, seed_noise(table))
        difference.add(table[1] - table[0], drawn[1] - drawn[0], scenes, paired_noise(table))
    for tally, truth in ((value, None), (difference, 0.0)):
        new, old = tally.coverage(truth)
        assert HONEST[0] <= new <= HONEST[1]
        assert old < new


def test_cider_holds_scenes_and_seeds():
    """CIDEr weighs words by the whole set's references and is no mean of right and wrong."""
    generator = np.random.default_rng(0)
    words = [f"word{i}" for i in range(12)]
    scenes, tally = 40, Tally()
    index = np.repeat(np.arange(scenes), 2)
    weights = scene_weights([f"s{i:03d}" for i in range(scenes)], 100, 0)
    for _ in range(120):
        truth = [tuple(" ".join(generator.choice(words, 5)) for _ in range(2)) for _ in index]
        hard = generator.uniform(0.1, 0.7, scenes)[index]
        table, drawn = np.zeros((2, 3)), np.zeros((2, 3, 100))
        for run in np.ndindex(2, 3):
            wrong = np.clip(hard + 0.06 * generator.normal(), 0, 1)
            said = [
                " ".join(str(generator.choice(words)) if generator.random() < w else word for word in refs[0].split())
                for w, refs in zip(wrong, truth, strict=True)
            ]
            scores = captions.NGrams(said, truth).cider()
            table[run], drawn[run] = scores.mean(), mean_replicates(scores, index, weights)
        tally.add(table[0], drawn[0], scenes, seed_noise(table))
    new, old = tally.coverage()
    assert HONEST[0] <= new <= 0.99
    assert old < 0.9


def test_correlation_over_scenes_holds_scenes_and_seeds():
    """tables/derived: rank correlation over the scenes of a run, which another seed makes higher or lower."""
    generator = np.random.default_rng(1)
    scenes, teachers, seeds, tally = 40, 3, 2, Tally()
    names = [f"s{i:03d}" for i in range(scenes)]
    for _ in range(150):
        table, drawn = np.zeros((teachers, seeds)), np.zeros((teachers, seeds, 100))
        level = generator.normal(size=scenes)
        for run in np.ndindex(teachers, seeds):
            slope = 0.6 + 0.2 * generator.normal()
            score = slope * level + generator.normal(size=scenes)
            sides = [SampleScores(tuple(names), tuple(names), values) for values in (level, score)]
            found = next(derived_scores(sides[0], sides[1], "em", 100))[2]
            table[run], drawn[run] = to_fisher(found.value), to_fisher(found.replicates)
        tally.add(table[0], drawn[0], scenes, seed_noise(table))
    new, old = tally.coverage()
    assert HONEST[0] <= new <= 0.99
    assert old < 0.93


@pytest.mark.parametrize("alike", [0.0, 0.98], ids=["runs of a teacher differ", "runs of a teacher are alike"])
def test_correlation_over_runs_holds_scenes_and_seeds(alike):
    """tables/findings: two scores that have nothing to do with each other; a run's scores hold the noise of 20 scenes."""
    generator = np.random.default_rng(2)
    backbones, teachers, seeds, scenes, covered, before = 3, 4, 2, 20, 0, 0
    weights = scene_weights([f"s{i:03d}" for i in range(scenes)], 30, 0)
    for _ in range(150):
        rows = []
        for backbone, teacher in np.ndindex(backbones, teachers):
            for benchmark, task in (("corr", "representation"), ("qa", "qa")):
                own = alike**0.5 * generator.normal() + (1 - alike) ** 0.5 * generator.normal(size=(seeds, 1))
                values = own + 0.5 * generator.normal(size=(seeds, scenes))
                rows.append(
                    blank_row(f"b{backbone}", f"t{teacher}", benchmark, task=task, n_scenes=scenes)
                    | {"seed_values": values.mean(1).tolist(), "replicates": (values @ weights.T / scenes).tolist()}
                    | {"seeds": list(range(seeds))}
                )
        found = main_association(associations(rows, "rooms", "3drs", LEVEL))
        assert found is not None
        covered += found.spearman.sign == 0
        value, freedom = found.spearman.value, backbones * teachers * seeds - (backbones - 1) - 3
        before += abs(np.arctanh(value)) <= 1.96 * np.sqrt((1 + value**2 / 2) / freedom)
    assert HONEST[0] <= covered / 150 <= HONEST[1] + 0.005
    assert (before / 150 < 0.92) == bool(alike)


def test_two_studies_do_not_find_opposite_effects():
    """A teacher that does nothing, the same study with other seeds: how often both mark it, one up and one down.

    Scenes are shared. As measured on two machines: +0.8 [+0.3, +1.3] on one, -0.7 [-1.2, -0.2] on the other.
    """
    generator = np.random.default_rng(3)
    scenes = 80
    index = np.repeat(np.arange(scenes), 6)
    run = metric("mean", index, scene_weights([f"s{i:03d}" for i in range(scenes)], 100, 0))
    signs: dict[str, list[tuple[int, int]]] = {"new": [], "old": []}
    for _ in range(200):
        pair: dict[str, list[int]] = {"new": [], "old": []}
        for _ in range(2):
            tally = Tally()
            found = [[run(right) for right in row] for row in answers(generator, index, (0.1, 0.0, 0.04), (4, 2))]
            table = np.array([[score for score, _ in row] for row in found])
            drawn = np.array([[replicates for _, replicates in row] for row in found])
            tally.add(table[1] - table[0], drawn[1] - drawn[0], scenes, paired_noise(table))
            for name, (low, high) in (("new", tally.ends[0][1:]), ("old", tally.old[0])):
                pair[name].append(int(low > 0) - int(high < 0))
        for name, (one, other) in pair.items():
            signs[name].append((one, other))
    opposite = {name: sum(one * other < 0 for one, other in found) / len(found) for name, found in signs.items()}
    assert opposite["old"] > 0.03
    assert opposite["new"] <= 0.005
