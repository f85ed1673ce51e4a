"""``bench scoring`` at a small size: both sides agree, and its ratios come from its own measurements. No time is asserted."""

from __future__ import annotations

import json

import pytest

from pipeline.__main__ import main
from pipeline.speed import _scoring_plain, scoring

SMALL = ["--grounding", "300", "--answers", "150", "--captions", "60", "--no-meteor"]


def test_four_comparisons_of_figures_that_agree(tmp_path, capsys):
    assert main(["bench", "scoring", "--out", str(tmp_path / "out.json"), *SMALL]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [f"score {k}" for k in ("scanrefer", "multi3drefer", "scanqa", "scan2cap")]
    for row in rows:
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["other"] / row["ours"])
    printed = capsys.readouterr().out
    assert "made-up data" in printed
    assert "150 samples" in printed


def test_a_difference_is_no_measurement(monkeypatch, tmp_path):
    good = _scoring_plain.single

    def wrong(*args):
        return {key: value + 0.01 for key, value in good(*args).items()}

    monkeypatch.setattr(_scoring_plain, "single", wrong)
    with pytest.raises(RuntimeError, match=r"acc@0\.25.*ours"):
        scoring.measure(_arguments(), tmp_path)


def _arguments():
    import argparse

    parser = argparse.ArgumentParser()
    scoring.configure(parser)
    return parser.parse_args(SMALL)
