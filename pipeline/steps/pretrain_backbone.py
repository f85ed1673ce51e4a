"""Build a tiny backbone and pretrain it on questions about single views (2D only): results/backbones/{backbone}/.

Writes the model and tokenizer in the transformers layout, metrics.json (loss curve, held-out accuracy per kind against the
best constant answer), run.json and, last, manifest.json. Run it again after a crash and it resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "build a tiny backbone and pretrain it on single views (resumes from its checkpoint)"
OWNS_FOLDER = True


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="results/scenes/D/manifest.json")
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="manifest.json to write")


def run(args: argparse.Namespace) -> None:
    from pipeline import registry
    from pipeline.device import device
    from pipeline.errors import ConfigError
    from pipeline.index import SceneIndex
    from pipeline.provenance import run_record

    spec = args.spec
    index = SceneIndex(args.scenes)
    member = registry.create("backbones", spec["backbone"])
    dataset = member.pretrain_dataset()
    if dataset is None:
        raise ConfigError(f"backbone {member.name!r} is a released checkpoint, there is nothing to pretrain")
    if dataset != index.dataset:
        raise ConfigError(f"{args.scenes} holds dataset {index.dataset!r}", allowed=f"{dataset!r} (pretrain.dataset)")
    with device(args.gpus) as where, run_record(args.out.with_name("run.json"), verb="pretrain_backbone", spec=spec) as record:
        args.out.unlink(missing_ok=True)
        record |= _pretrain(args, member, index, where)


def _pretrain(args: argparse.Namespace, member: Any, index: Any, device: str) -> dict[str, Any]:
    from pipeline.compute import prepare_torch
    from pipeline.mllm.pretrain2d.run import pretrain, summary_lines
    from pipeline.provenance import digest, file_digest, write_atomic, write_manifest

    prepare_torch(args.threads)
    folder = args.out.parent
    identity = digest({"spec": args.spec, "scenes": index.digest})
    figures = pretrain(member, index, folder, digest=identity, device=device)
    print("\n".join(summary_lines(figures)))
    import json

    write_atomic(folder / "metrics.json", json.dumps(figures, sort_keys=True, indent=1) + "\n")
    write_manifest(
        args.out,
        {
            "backbone": member.name,
            "spec": digest(args.spec),
            "scenes": index.digest,
            "weights": file_digest(folder / "model.safetensors"),
            "parameters": figures["parameters"],
            "vocabulary": figures["vocabulary"],
            "held_out": figures["held_out"],
        },
    )
    return {"held_out": figures["held_out"], "views": figures["views"]}
