"""Train a teacher inside the workflow: results/teachers/{teacher}/manifest.json and its weights. Resumable."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core import registry
from pipeline.core.errors import ConfigError
from pipeline.core.finished import begin, digests_of, finish, kept, same_identity
from pipeline.core.provenance import run_record
from pipeline.core.runtime import device, prepare_torch
from pipeline.scenes.index import SceneIndex

HELP = "train a teacher on scenes of its own (resumes from its last checkpoint)"
OWNS_FOLDER = True


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="scenes it learns from")
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="manifest.json to write")


def run(args: argparse.Namespace) -> None:
    member = args.spec["teacher"]
    teacher = registry.create("teachers", member)
    if not teacher.trained_in_workflow:
        raise ConfigError(f"teacher {teacher.name!r} is not trained here", where=f"kind {member['kind']}")
    index = SceneIndex(args.scenes)
    same_identity(index.content, {"dataset": teacher.pretrain_dataset()}, args.scenes, "the scenes that it learns from")
    inputs = {"scenes": index.digest}
    if kept(args.out, args.spec, inputs, force=args.force):
        return
    folder = args.out.parent
    folder.mkdir(parents=True, exist_ok=True)
    prepare_torch(args.threads)
    training = folder / "training"  # apart, so that an older result stays whole until this one is finished
    training.mkdir(exist_ok=True)
    with device(args.gpus) as where, run_record(folder / "run.json", command="pretrain_teacher", spec=args.spec):
        figures = teacher.pretrain(index, training, device=where)
        begin(args.out)
        for path in training.iterdir():
            path.replace(folder / path.name)
        training.rmdir()
        content = {"teacher": teacher.name, "member": member, "files": digests_of(folder), "figures": figures}
        finish(args.out, args.spec, inputs, content)
