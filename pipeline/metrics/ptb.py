"""Texts as the Stanford PTB tokenizer gives them, lower case and without punctuation: the official form of ScanQA's script.

The jar comes with pycocoevalcap (its class PTBTokenizer, version 3.4.1); one Java process tokenizes all texts of a scoring.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from pipeline.core.errors import EnvironmentFaultError
from pipeline.metrics.captions import one_line
from pipeline.metrics.java import JAVA_MEND, coco_file, java_home

_PUNCTUATION = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";")
)
"""Tokens that pycocoevalcap takes out afterwards; brackets come out lower-cased, so they stay in, there as here."""
_MOST_S = 600


def tokenized(texts: Sequence[str]) -> list[str]:
    """Return each text (made one line) as tokens joined by single blanks. Raise EnvironmentFaultError without Java."""
    home = java_home()
    if home is None:
        raise EnvironmentFaultError("the PTB tokenizer needs a Java runtime and none was found", fix=JAVA_MEND)
    if not texts:
        return []
    jar = coco_file("tokenizer", "stanford-corenlp-3.4.1.jar")
    command = [str(home / "bin" / "java"), "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    lines = "\n".join(one_line(text) for text in texts) + "\n"
    try:
        done = subprocess.run(command, input=lines.encode("utf-8", errors="replace"), capture_output=True, timeout=_MOST_S)
    except subprocess.TimeoutExpired:
        raise EnvironmentFaultError(f"the PTB tokenizer did not end within {_MOST_S} s", fix=JAVA_MEND) from None
    found = done.stdout.decode("utf-8", errors="replace").split("\n")[:-1]
    if done.returncode or len(found) != len(texts):
        tail = done.stderr.decode("utf-8", errors="replace")[-400:].strip()
        raise EnvironmentFaultError(
            f"the PTB tokenizer ended with code {done.returncode} and {len(found)} lines for {len(texts)} texts: {tail}",
            fix=JAVA_MEND,
        )
    return [" ".join(w for w in line.rstrip().split(" ") if w not in _PUNCTUATION) for line in found]


def ptb_texts(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Tokenize candidates and references in one process."""
    flat = tokenized([*candidates, *(r for refs in references for r in refs)])
    rest = iter(flat[len(candidates) :])
    return flat[: len(candidates)], [tuple(next(rest) for _ in refs) for refs in references]
