"""Train a teacher inside the workflow: results/teachers/{teacher}/manifest.json and its weights. Resumable."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "train a teacher on scenes of its own (resumes from its last checkpoint)"
OWNS_FOLDER = True


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="scenes it learns from")
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="manifest.json to write")


def run(args: argparse.Namespace) -> None:
    from pipeline import registry
    from pipeline.compute import prepare_torch
    from pipeline.device import device
    from pipeline.errors import ConfigError
    from pipeline.index import SceneIndex
    from pipeline.provenance import digest, file_digest, run_record, write_manifest

    teacher = registry.create("teachers", args.spec["teacher"])
    if not teacher.trained_here:
        raise ConfigError(f"teacher {teacher.name!r} is not trained here", where=f"kind {args.spec['teacher']['kind']}")
    index = SceneIndex(args.scenes)
    folder = args.out.parent
    folder.mkdir(parents=True, exist_ok=True)
    prepare_torch(args.threads)
    with device(args.gpus) as where, run_record(folder / "run.json", verb="pretrain_teacher", spec=args.spec):
        figures = teacher.pretrain(index, folder, device=where)
        files = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
        content = {"teacher": teacher.name, "spec": digest(args.spec), "scenes": index.digest}
        write_manifest(args.out, content | {"weights": files, "figures": figures})
