"""Build a tiny backbone and pretrain it on questions about single views (2D only): results/backbones/{backbone}/.

Writes the model and tokenizer in the transformers layout, metrics.json (loss curve, held-out accuracy per kind against the
best constant answer), run.json and, last, manifest.json. Run it again after a crash and it resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline.core import registry
from pipeline.core.errors import ConfigError
from pipeline.core.finished import begin, digests_of, finish, kept
from pipeline.core.provenance import digest, run_record, write_atomic
from pipeline.core.runtime import device, prepare_torch
from pipeline.scenes.index import SceneIndex
from pipeline.training.pretrain2d.run import pretrain, summary_lines

HELP = "build a tiny backbone and pretrain it on single views (resumes from its checkpoint)"
OWNS_FOLDER = True


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="results/scenes/D/manifest.json")
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="manifest.json to write")


def run(args: argparse.Namespace) -> None:
    spec = args.spec
    index = SceneIndex(args.scenes)
    member = registry.create("backbones", spec["backbone"])
    dataset = member.pretrain_dataset()
    if dataset is None:
        raise ConfigError(f"backbone {member.name!r} is a released checkpoint, there is nothing to pretrain")
    if dataset != index.dataset:
        raise ConfigError(f"{args.scenes} holds dataset {index.dataset!r}", allowed=f"{dataset!r} (pretrain.dataset)")
    inputs = {"scenes": index.content_digest("train"), "annotations": index.annotation_digests("train")}
    if kept(args.out, spec, inputs, force=args.force):
        return
    with (
        device(args.gpus) as where,
        run_record(args.out.with_name("run.json"), command="pretrain_backbone", spec=spec) as record,
    ):
        record |= _pretrain(args, member, index, inputs, where)


def _pretrain(args: argparse.Namespace, member: Any, index: Any, inputs: dict[str, Any], device: str) -> dict[str, Any]:
    prepare_torch(args.threads)
    folder = args.out.parent
    identity = digest({"spec": args.spec, "inputs": inputs})
    figures = pretrain(member, index, folder, digest=identity, device=device, saving=lambda: begin(args.out))
    print("\n".join(summary_lines(figures)))
    write_atomic(folder / "metrics.json", json.dumps(figures, sort_keys=True, indent=1) + "\n")
    content = {name: figures[name] for name in ("parameters", "vocabulary", "held_out")}
    content |= {"backbone": member.name, "member": args.spec["backbone"], "files": digests_of(folder)}
    finish(args.out, args.spec, inputs, content)
    return {"held_out": figures["held_out"], "views": figures["views"]}
