"""All scans of a selection: what is there already, what is missing, and the making of the rest in several threads.

Threads, not processes: decoding, inflating, hashing and file access release the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from pipeline.core.errors import DataError, EnvironmentFaultError
from pipeline.core.progress import Progress
from pipeline.datasets.scannet.scenes import Counts, Release, SceneJob, make_scene, read_scene
from pipeline.scenes.types import SceneRecord

Made = tuple[SceneRecord, Counts]
SHOWN = 5


def finished_scenes(jobs: Sequence[SceneJob], threads: int) -> dict[str, Made | None]:
    """Scenes that are there whole, read back and compared with their checksums; None for the others."""
    with ThreadPoolExecutor(threads) as workers:
        return dict(zip([job.scene_id for job in jobs], workers.map(read_scene, jobs), strict=True))


def nothing_missing(jobs: Sequence[SceneJob], name: str) -> None:
    """DataError that lists the scans without all their source files: found in seconds, before the first scan is made."""
    lacking = {job.scene_id: job.missing for job in jobs if job.missing}
    if lacking:
        paths = [str(path) for missing in lacking.values() for path in missing]
        raise DataError(
            f"source files of {len(lacking)} of {len(jobs)} scans are missing: {_listed(list(lacking))}",
            where=f"{len(paths)} files or folders: {_listed(paths)}",
            fix=f"get them (docs/scannet.md says where from), or leave the scans out: datasets.{name}.skip_broken: true",
        )


def make_scenes(
    jobs: Sequence[SceneJob], release: Release, threads: int, *, name: str, skip_broken: bool
) -> tuple[dict[str, Made], dict[str, DataError]]:
    """Make scenes; the faults of those that are left out. Without ``skip_broken`` the first fault ends it (DataError)."""
    made: dict[str, Made] = {}
    broken: dict[str, DataError] = {}
    workers = ThreadPoolExecutor(threads)
    try:
        with Progress(f"prepare {name}", len(jobs), "scenes") as progress:
            for job, result in _finished(workers, jobs, release):
                if not isinstance(result, DataError):
                    made[job.scene_id] = result
                elif skip_broken:
                    broken[job.scene_id] = result
                else:
                    raise _named(job, result, name)
                progress.step()
    finally:
        workers.shutdown(cancel_futures=True)
    return made, broken


def _named(job: SceneJob, error: DataError, name: str) -> DataError:
    """The fault of a scan, with the scan's name and the way round it."""
    way = f"datasets.{name}.skip_broken: true leaves such scans out; finished scans are kept"
    fix = f"{error.fix}; {way}" if error.fix else way
    return type(error)(f"scan {job.scene_id}: {error.what}", where=error.where, allowed=error.allowed, fix=fix)


def _finished(
    workers: ThreadPoolExecutor, jobs: Sequence[SceneJob], release: Release
) -> Iterator[tuple[SceneJob, Made | DataError]]:
    """Jobs as they end, with the fault of the scan if it has one. A full disk and the like end everything."""
    running: dict[Future[Made], SceneJob] = {workers.submit(make_scene, job, release): job for job in jobs}
    for done in as_completed(running):
        try:
            yield running[done], done.result()
        except DataError as error:
            yield running[done], error
        except OSError as error:
            what = f"reading or writing failed at scan {running[done].scene_id} ({error.strerror or error})"
            raise EnvironmentFaultError(what, where=error.filename, fix="make room or fix the disk, then run again") from None


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")
