"""Finished work: when a command may keep it, and whether what a command reads is what its maker wrote.

A command that fills a folder ends with its manifest.json, which holds ``spec`` (digest of the command's options),
``inputs`` (digests of exactly what it read) and ``files`` (name -> digest of what it wrote). Snakemake removes manifest.json
before it starts a job; the same text stays in finished.json beside it. So a command whose spec and inputs are unchanged, and
whose files are undamaged, puts the manifest back and returns at once, and an interrupted rerun costs nothing that was finished.

(Snakemake's own flag ``update()`` would keep the manifest too, but after a job that failed it takes the old file for the result
of the new parameters: "Nothing to be done". Tried on 9.27.)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import CheckpointError, DataError
from pipeline.core.files import fsync
from pipeline.core.locks import NAME as LOCK
from pipeline.core.provenance import digest, file_digest, read_manifest, write_manifest

FINISHED = "finished.json"
FORCED = "PIPELINE_FORCED"
"""Environment variable, set by the workflow for its jobs: JSON list of rules and files that the user forced; "*" is all."""
_NOT_RESULTS = ("manifest.json", FINISHED, "run.json", "metrics.jsonl", LOCK)


def forced(command: str, outputs: Iterable[Path]) -> bool:
    """Return whether the user told Snakemake to make these outputs of this rule again (-f, -F, --forcerun)."""
    names = {os.path.normpath(name) for name in json.loads(os.environ.get(FORCED) or "[]")}  # ./results/... as typed
    return bool(names & {"*", command, *(str(path) for path in outputs)})


def digests_of(folder: Path) -> dict[str, str]:
    """Name -> digest of every file in a folder that a command wrote there as its result: no records of the run, no folders."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return {path.name: file_digest(path) for path in files if path.name not in _NOT_RESULTS}


def damaged_files(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Names of files that are missing or not what was written, with what is wrong; an unreadable file raises its OSError."""
    faults = []
    for name, written in files.items():
        try:
            found = file_digest(folder / name)
        except FileNotFoundError:
            faults.append(f"{name} is missing")
            continue
        if found != written:
            faults.append(f"{name} is damaged")
    return faults


def check_files(manifest: Path, content: Mapping[str, Any]) -> None:
    """CheckpointError unless the files that a manifest names are those that its maker wrote; OSError when one is unreadable."""
    try:
        faults = damaged_files(manifest.parent, content["files"])
    except KeyError:
        faults = ["it names no files: an older version made it"]
    if faults:
        raise CheckpointError(
            f"{'; '.join(faults)} (compared with the digests in the manifest)",
            where=str(manifest),
            fix=f"snakemake --cores all -f {manifest}",
        )


def kept(out: Path, spec: Mapping[str, Any], inputs: Mapping[str, Any], *, force: bool) -> dict[str, Any] | None:
    """Content of the finished result at ``out`` when it is of this spec and these inputs, whole and not forced; else None.

    Its manifest is put back where Snakemake has removed it.
    """
    if force:
        return None
    wanted = (digest(spec), json.loads(json.dumps(inputs)))
    for path in (out, out.with_name(FINISHED)):
        try:
            content = read_manifest(path, made_by="")
        except DataError:
            continue
        if (content.get("spec"), content.get("inputs")) != wanted:
            continue
        faults = damaged_files(out.parent, content.get("files", {}))
        if faults:
            print(f"warning: {out.parent}: {'; '.join(faults)}; it is made again", file=sys.stderr)
            return None
        if path != out:
            write_manifest(out, content)
        print(f"{out}: finished already, of the same inputs; kept")
        return content
    return None


def begin(out: Path) -> None:
    """Withdraw the result at ``out``, because its files are about to be replaced."""
    out.unlink(missing_ok=True)
    out.with_name(FINISHED).unlink(missing_ok=True)


def finish(out: Path, spec: Mapping[str, Any], inputs: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Write the manifest of a finished result, last; its ``files`` are flushed before it."""
    for path in (*(out.parent / name for name in content["files"]), out.parent):
        fsync(path)
    whole = {**content, "spec": digest(spec), "inputs": dict(inputs)}
    write_manifest(out.with_name(FINISHED), whole)
    write_manifest(out, whole)


def same_identity(made: Mapping[str, Any], wanted: Mapping[str, Any], manifest: Path, what: str) -> None:
    """DataError unless a manifest is about what is wanted of it: somebody else's result may lie under this name.

    ``wanted``: key of the manifest -> value that it must have.
    """
    wrong = {key: value for key, value in wanted.items() if made.get(key) != value}
    if wrong:
        key, value = next(iter(wrong.items()))
        raise DataError(
            f"{manifest} is not {what}: its {key} is {_short(made.get(key))}",
            allowed=_short(value),
            fix=f"snakemake --cores all -f {manifest}   (or put the right files there)",
        )


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
