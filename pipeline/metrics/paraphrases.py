"""The part of METEOR's paraphrase table that can matter for given references, cached.

Reading the whole table (62 MB packed, 5.3 million entries) is most of METEOR's time: about 6 s and 500 MB in every scoring
job. An entry is a pair of phrases and can only be used when one of them stands in a reference, so entries of which neither
phrase consists of the references' words can go; the scores do not change, whatever the predictions say. The references of a
study are the same for all its runs, so one filtering (about 10 s) serves all of them.

The cache is ``$PIPELINE_CACHE``, else ``$XDG_CACHE_HOME/three-drs-pipeline``, else ``~/.cache/three-drs-pipeline``; it may be
deleted at any time. Where it cannot be written, METEOR reads its whole table.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.core.files import replacing
from pipeline.core.provenance import digest, file_digest, write_atomic

_VERSION = 1
_PIECES = re.compile(r"[^\W_]+")
_MARKERS = ("sos", "eos")
"""Words that Scan2Cap puts around every caption, so that its raw references have the vocabulary of the scored ones."""


def vocabulary(texts: Iterable[str]) -> frozenset[str]:
    """Return the words of texts, lower case, split at every mark; also joined across marks ("u.s." gives u, s and us)."""
    words: set[str] = set(_MARKERS)
    for text in texts:
        for word in text.lower().split():
            pieces = _PIECES.findall(word)
            words.update(pieces)
            words.add("".join(pieces))
    return frozenset(words - {""})


def cache_folder() -> Path:
    """Return where filtered tables are kept."""
    if os.environ.get("PIPELINE_CACHE"):
        return Path(os.environ["PIPELINE_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "three-drs-pipeline"


def filtered_table(source: Path, words: frozenset[str]) -> Path | None:
    """Return ``source`` without entries that references of these words cannot use; None where nothing can be cached."""
    key = digest([_VERSION, source.name, source.stat().st_size, sorted(words)])
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"paraphrases-{key}.gz"
        if _whole(target):
            return target
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # $PIPELINE_CACHE may be shared: no link, no pipe
        with open(os.open(folder / f".{target.name}.lock", flags, 0o666), "wb") as lock:
            # Jobs that start together wait for the first one instead of filtering as well.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _whole(target):
                _write(source, words, target)
    except (OSError, RuntimeError):
        return None
    return target


def _whole(table: Path) -> bool:
    """Return whether a cached table is the one that was written: one flipped bit would be another METEOR in every study of a
    user.
    """
    try:
        return _digest_file(table).read_text(encoding="utf-8", errors="replace").strip() == file_digest(table)
    except OSError:
        return False


def _digest_file(table: Path) -> Path:
    return table.with_suffix(".digest")


def _write(source: Path, words: frozenset[str], target: Path) -> None:
    _digest_file(target).unlink(missing_ok=True)
    with replacing(target) as packed, gzip.open(packed, "wt", compresslevel=1, encoding="utf-8", newline="\n") as stream:
        stream.writelines(usable_entries(source, words))
    write_atomic(_digest_file(target), file_digest(target))


def usable_entries(source: Path, words: frozenset[str]) -> Iterator[str]:
    """Yield entries (probability, phrase, phrase: three lines each) with a phrase made of ``words`` (or of marks) only."""
    last, last_known = "", False
    with gzip.open(source, "rt", encoding="utf-8", newline="\n") as stream:
        for probability in stream:
            first, second = stream.readline(), stream.readline()
            if first != last:  # the table is sorted by its first phrase
                last, last_known = first, words.issuperset(_PIECES.findall(first))
            if last_known or words.issuperset(_PIECES.findall(second)):
                yield probability + first + second
