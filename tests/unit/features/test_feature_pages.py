"""Pages of mapped files: in memory when asked for, an error when they cannot be, and no thread waits for another."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import numpy as np
import pytest

from pipeline.features import mapped as pages


def mapped(path: Path, size: int) -> np.ndarray:
    path.write_bytes(bytes(size))
    with path.open("rb") as stream:
        return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY), dtype=np.uint8)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (5, 4097), (4096, 8192), (8191, 20_000), (0, 20_000)])
def test_any_bytes_of_a_file(tmp_path: Path, start: int, stop: int) -> None:
    view = mapped(tmp_path / "data", 20_000)[start:stop]
    pages.bring_in(view)
    assert not view.any()


def test_a_file_that_was_cut_is_an_error(tmp_path: Path) -> None:
    view = mapped(tmp_path / "data", 20_000)
    with (tmp_path / "data").open("r+b") as stream:
        stream.truncate(5000)
    pages.bring_in(view[:4000])
    if pages._madvise() is not None:
        with pytest.raises(OSError, match=r"Errno"):
            pages.bring_in(view)


@pytest.mark.parametrize("answer", ["no such call", "no such advice"])
def test_systems_without_it_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """A fake advice that no kernel knows (EINVAL), and a system that is not asked."""
    view = mapped(tmp_path / "data", 20_000)
    if answer == "no such call":
        monkeypatch.setattr(pages, "_madvise", lambda: None)
    else:
        monkeypatch.setattr(pages, "_POPULATE_READ", 9999)
    pages.bring_in(view)


def test_the_call_lets_other_threads_run() -> None:
    """ctypes releases the interpreter's lock for functions of a CDLL, not for those of a PyDLL."""
    found = pages._madvise()
    if found is None:
        pytest.skip("this system has no such call")
    assert not found._flags_ & 0x4  # type: ignore[attr-defined]  # FUNCFLAG_PYTHONAPI
    assert ctypes.pythonapi.Py_IncRef._flags_ & 0x4
