"""How things are measured: times, page cache, peak memory, and rows that compute their ratio from their own two numbers."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["faster", "smaller"]


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison, both sides measured in this run unless ``note`` says otherwise.

    ``faster``: ``ratio`` = other / ours, at least ``target``; ``smaller``: ``ratio`` = ours / other, at most ``target``.
    """

    name: str
    ours: float
    other: float
    other_name: str
    unit: str
    kind: Kind
    target: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.other / self.ours if self.kind == "faster" else self.ours / self.other

    @property
    def met(self) -> bool | None:
        """Return whether the target is met; None without a target."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.kind == "faster" else self.ratio <= self.target

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


def interleaved(runs: Mapping[str, Callable[[], Callable[[], object]]], rounds: int) -> dict[str, float]:
    """Return median wall seconds of several runs, each done once per round, so that load on the machine hits all alike.

    Each value prepares a run (not timed) and returns what is timed. Garbage is collected before, never inside.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, prepare in runs.items():
                run = prepare()
                start = time.perf_counter()
                result = run()
                found[name].append(time.perf_counter() - start)
                del run, result  # giving memory back is not part of it
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in found.items()}


def median_s(run: Callable[[], object], repeats: int) -> float:
    """Return median wall seconds of one run."""
    return interleaved({"": lambda: run}, repeats)[""]


def drop_cache(paths: Sequence[Path]) -> bool:
    """Ask the kernel to forget the pages of files (they must be flushed). False where it cannot be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True


def peak_mb() -> float:
    """Return the most memory that this process ever held, in MB.

    Linux: VmHWM. getrusage's maximum is not used where this is there: a child inherits its parent's through exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return _status_mb(status, "VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def reset_peak() -> float:
    """Start the peak anew from the memory held now, which is returned in MB (Linux; elsewhere the old peak stays)."""
    gc.collect()
    _trim()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_mb()
    return _status_mb(Path("/proc/self/status"), "VmRSS")


def _trim() -> None:
    """Give freed memory back, so that it does not hide what comes next (glibc only)."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status_mb(status: Path, key: str) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024 / 1e6


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0] if models else cpu
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(pages / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "host": platform.node(),
    }
