"""Peak memory of writing and of reading a store, in a process of its own: ``python -m pipeline.speed._memory SCENES ...``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.core.errors import EnvironmentFaultError
from pipeline.features.resample import resample_features
from pipeline.features.store import FeatureReader, FeatureWriter
from pipeline.speed._data import Shape, features_of, reference_tokens
from pipeline.speed._measure import Row, peak_mb, reset_peak


def measure(folder: Path, shape: Shape, counts: tuple[int, int]) -> list[Row]:
    """Measure peaks of storing and of reading all scenes at the student's grid, few scenes against many."""
    peaks = [child("pipeline.speed._memory", {"folder": str(folder), "shape": asdict(shape), "scenes": n}) for n in counts]
    few, many = (f"peak of {count} scenes" for count in counts)
    return [
        Row(f"{command} {many}", peaks[1][command], peaks[0][command], few, "MB", "smaller", 1.1, "whole process, as stored")
        for command in ("write", "read")
    ]


def child(module: str, task: dict[str, Any]) -> dict[str, Any]:
    """Run ``python -m module`` with a JSON task; its JSON answer. EnvironmentFaultError with its last words when it fails."""
    command = [sys.executable, "-m", module, json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or [f"signal {-done.returncode}"]
        raise EnvironmentFaultError(f"a measuring process failed: {words[0]}", where=module)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _measure(folder: Path, shape: Shape, scenes: int) -> dict[str, float]:
    # Scenes that are averaged already: the full-size scene and the tokens it is made of would hide what the store takes.
    features = resample_features(features_of(shape, reference_tokens(shape)), shape.pooled)
    pooled = Shape(shape.views, shape.student, shape.student, shape.dim, shape.student)
    spec = pooled.spec(pooled=False, compression="lossless")
    names = [f"scene{number:04d}" for number in range(scenes)]
    found = {"start": reset_peak()}
    with FeatureWriter(folder, spec) as writer:
        for name in names:
            writer.write(name, shape.frames, features)
        writer.finish()
    found["write"] = peak_mb()
    reset_peak()
    reader, total = FeatureReader([folder / "manifest.json"]), 0.0
    for name in names:
        total += float(reader.read(name, shape.frames).tokens[0, 0, 0, 0])
    found["read"] = peak_mb()
    shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    _task = json.loads(sys.argv[1])
    print(json.dumps(_measure(Path(_task["folder"]), Shape(**_task["shape"]), _task["scenes"])))
