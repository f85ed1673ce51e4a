"""Where and how a process computes: its device, its threads, and how it notices that memory is short.

 ``--gpus 0`` is the CPU, ``--gpus N`` one free GPU among those that it may see.

Schedulers (Slurm) show each job its own GPUs through CUDA_VISIBLE_DEVICES. On a plain machine several jobs see all GPUs, so
each takes the first one that no other process of this user on this machine holds, by an advisory lock that the kernel
releases when the process ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.core.errors import EnvironmentFaultError

ON_THE_CPU = "compute on the CPU: --gpus 0 (Snakemake: leave gpu out of --set-resources)"


@contextmanager
def device(gpus: int, *, without: str = ON_THE_CPU) -> Iterator[str]:
    """ "cpu", or "cuda:i" for as long as the context lasts. EnvironmentFaultError, with what to do ``without`` a GPU."""
    if gpus < 1:
        yield "cpu"
        return
    names = _visible_gpus()
    if not names:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise EnvironmentFaultError(
            f"{gpus} GPU{'s' * (gpus > 1)} asked for and none can be used",
            where="CUDA_VISIBLE_DEVICES is not set" if shown is None else f"CUDA_VISIBLE_DEVICES={shown!r}",
            allowed="a CUDA device, its driver, and a torch built for CUDA",
            fix=without,
        )
    index, lock = claim(names, lock_folder())
    _use(index)
    try:
        yield f"cuda:{index}"
    finally:
        if lock is not None:
            lock.close()


def _visible_gpus() -> list[str]:
    """Hardware names of the GPUs that torch may use, in its order."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


def _use(index: int) -> None:
    """Make it the device on which streams, events and page-locked memory are made when nothing else is said."""
    import torch

    torch.cuda.set_device(index)


def claim(names: Sequence[str], folder: Path | None) -> tuple[int, IO[str] | None]:
    """Index of the first GPU that no other process holds, and the lock that holds it until it is closed.

    When all are held, or there is no ``folder`` for locks (index 0, None): the GPU is shared, which is said on stderr.
    """
    if folder is None:
        print(
            "warning: no folder of this user's own for locks: other jobs of this machine may use the same GPU", file=sys.stderr
        )
        return 0, None
    for index, name in enumerate(names):
        stream = (folder / f"{name}.lock").open("a", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            continue
        return index, stream
    print(f"all {len(names)} visible GPUs are in use by other jobs of this project: sharing the first", file=sys.stderr)
    return 0, None


def lock_folder() -> Path | None:
    """A folder on this machine that only this user can enter, the same for all jobs; None where there is none.

    The temporary folder is everybody's: what another user has put under our name there (a folder, a link, a pipe) is left
    alone, and the user's own runtime folder is taken instead.
    """
    own = f"three-drs-pipeline-{os.getuid()}"
    for base in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR")):
        if base and _is_private(Path(base) / own):
            return Path(base) / own
    return None


def _is_private(folder: Path) -> bool:
    """Return whether it is (now) a real folder of this user's with no rights for others, so that nobody else can put names in
    it.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


_TRIM, _TOP_PAD, _MMAP = -1, -2, -3
"""Parameters of glibc's mallopt (malloc.h)."""


def prepare_torch(threads: int) -> None:
    """Set the number of CPU threads of this process and keep freed memory in it.

    A training step of a tiny model frees and asks for the same tens of megabytes again and again; with glibc's own thresholds
    every such block is mapped anew. Two trainings side by side: 18.2 s instead of 19.7 s.
    """
    import torch

    torch.set_num_threads(threads)
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_MMAP, 1 << 30)
        mallopt(_TRIM, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)


_SHORT = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""In torch's messages when memory is short on the CPU, for page-locked memory, and in libraries that allocate themselves."""


def out_of_memory(error: BaseException) -> bool:
    """True for the errors by which torch (on a GPU or the CPU) and NumPy say that memory is short."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SHORT)


def first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


FREER_DEVICE = "compute where more memory is free (nvidia-smi shows who uses a GPU)"


@contextmanager
def enough_memory(doing: str, fix: str) -> Iterator[None]:
    """EnvironmentFaultError when memory runs out. ``doing``: in words."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise EnvironmentFaultError(
            f"memory ran out while {doing}",
            where=first_line(error),
            fix=fix,
        ) from None
