"""Digests, atomic manifests, versions and seeds: what makes a result traceable and a rerun decidable.

manifest.json is deterministic (digests, counts, shapes, checksums) and written last and atomically: its presence means
the folder is complete. Times, host and peak memory go to run.json beside it, which no rule depends on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.core.errors import DataError
from pipeline.core.files import replacing

PACKAGES = ("torch", "transformers", "snakemake", "zarr", "numcodecs", "open3d", "pandas", "pyarrow", "numpy")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def file_stamp(path: Path) -> list[int]:
    """Bytes of a file and when it was changed last, in ns: cheaper than its digest. Nothing for a file that is not there."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [found.st_size, found.st_mtime_ns]


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Write a file so that it is there whole or not at all (files.py); ``durable``: on the disk when this returns."""
    with replacing(path, durable=durable) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


_OWN_DIGEST = "manifest_digest"


def write_manifest(path: Path, content: dict[str, Any], *, durable: bool = True) -> None:
    """Write a deterministic manifest atomically (sorted keys, one trailing newline), with a digest of its own content."""
    content = content | {_OWN_DIGEST: digest(content)}
    write_atomic(path, json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n", durable=durable)


def read_manifest(path: Path, *, made_by: str) -> dict[str, Any]:
    """Read what ``write_manifest`` was given.

    DataError that names the command ``made_by``, which makes it, when the file is missing, malformed, or not what was written:
    one flipped bit in a box or a pose would be another number, and nobody would notice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", fix=made_by) from None
    except PermissionError as error:
        fix = "let this user read it: ls -ld shows its mode and its folder's, chmod changes it"
        raise DataError(f"{path} cannot be read ({error.strerror})", fix=fix) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", fix=made_by) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error})", fix=f"delete it and run: {made_by}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold a JSON object", fix=f"delete it and run: {made_by}")
    written = content.pop(_OWN_DIGEST, None)
    try:
        whole = written == digest(content)
    except ValueError:  # a number that is none: not written here
        whole = False
    if not whole:
        what = "is damaged or was edited: it contradicts its own digest" if written else "has no digest of its own content"
        raise DataError(f"{path} {what}", fix=f"delete it and run: {made_by}")
    return content


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on; a stage's own environment need not hold all of them."""
    installed = {name: _version(name) for name in PACKAGES}
    return {name: version for name, version in installed.items() if version} | {"python": platform.python_version()}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def seed_for(*parts: object) -> int:
    """A 63-bit seed from any parts, the same on every machine and in every process (unlike hash())."""
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def machine() -> dict[str, str]:
    """Return what decides a result's last digits on this machine: CPU, the instructions torch uses on it, the GPU in use."""
    found = {"cpu": _cpu_model()}
    torch = sys.modules.get("torch")  # not loaded for this: a step without it computes nothing with it
    if torch is not None:
        found["instructions"] = str(torch.backends.cpu.get_cpu_capability())
        if torch.cuda.is_initialized():
            found["gpu"] = str(torch.cuda.get_device_name())
    return found


def _cpu_model() -> str:
    """Name of the processor; its architecture where the system tells no name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


@contextmanager
def run_record(path: Path, **facts: Any) -> Iterator[dict[str, Any]]:
    """Write run.json at the end of a step: wall and CPU seconds, peak memory, machine, versions, plus what the body adds."""
    record: dict[str, Any] = dict(facts)
    start, cpu = time.perf_counter(), time.process_time()
    yield record
    record |= {
        "wall_s": round(time.perf_counter() - start, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "host": platform.node(),
        "machine": machine(),
        "versions": versions(),
    }
    write_atomic(path, json.dumps(record, sort_keys=True, indent=1, default=str) + "\n")
