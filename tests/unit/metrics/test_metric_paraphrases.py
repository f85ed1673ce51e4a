"""The filtered paraphrase table: what is kept, and the cache (equal scores: tests/parity/test_meteor_pycocoevalcap.py)."""

from __future__ import annotations

import gzip

import pytest

from pipeline.metrics.paraphrases import cache_folder, filtered_table, usable_entries, vocabulary

ENTRIES = [
    ("0.5", "couch", "sofa"),
    ("0.5", "sofa", "couch"),
    ("0.4", "sofa", "settee"),
    ("0.3", "truck", "lorry"),
    ("0.2", "next to", "beside"),
    ("0.2", "next door", "beside"),
    ("0.1", ",", "and"),
    ("0.1", "u.s.", "america"),
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "paraphrase-en.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines("\n".join(entry) + "\n" for entry in ENTRIES)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_vocabulary_splits_joins_and_lowers():
    words = vocabulary(["The U.S. sofa-bed, it's red", "  ", "..."])
    assert {"the", "u", "s", "us", "sofa", "bed", "sofabed", "it", "its", "red"} < words
    assert "" not in words


def test_entries_with_a_phrase_of_known_words_stay(table):
    kept = [entry.split("\n")[1:3] for entry in usable_entries(table, vocabulary(["The sofa, next to it"]))]
    assert kept == [["couch", "sofa"], ["sofa", "couch"], ["sofa", "settee"], ["next to", "beside"], [",", "and"]]


def test_cache_is_made_once_per_vocabulary(table, cache):
    first = filtered_table(table, vocabulary(["sofa"]))
    stamp = first.stat().st_mtime_ns
    assert filtered_table(table, vocabulary(["sofa sofa"])) == first
    assert first.stat().st_mtime_ns == stamp
    assert filtered_table(table, vocabulary(["truck"])) != first
    assert first.parent == cache == cache_folder()
    assert not list(cache.glob("*.tmp"))


def test_cache_that_cannot_be_written_is_no_error(table, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "file" / "below"))
    assert filtered_table(table, vocabulary(["sofa"])) is None
