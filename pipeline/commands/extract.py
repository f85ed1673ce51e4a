"""Cache a teacher's features of one shard of a dataset: results/features/{dataset}/{teacher}/{shard}/manifest.json.

Run it again after a crash and it goes on with the first scene that is missing. A derived teacher (``--source``) gets a view
manifest and no data. One process computes one shard on one GPU (``--gpus 0``: CPU); several GPUs work through several shards.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core import registry
from pipeline.core.errors import CheckpointError, ConfigError
from pipeline.core.finished import check_files, same_identity
from pipeline.core.provenance import read_manifest, run_record
from pipeline.core.runtime import FREER_DEVICE, device, enough_memory
from pipeline.features.engine import Concurrency, extract_shard
from pipeline.features.extraction import one_grid, records_of_shard, store_spec, write_view
from pipeline.features.store import FeatureWriter
from pipeline.scenes.index import SceneIndex

if TYPE_CHECKING:
    from pipeline.teachers.base import Teacher

HELP = "cache a teacher's features of one shard of scenes (resumes scene by scene)"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=Path, required=True, metavar="MANIFEST", help="results/scenes/D/manifest.json")
    parser.add_argument("--weights", type=Path, metavar="MANIFEST", help="manifest of a teacher trained here")
    parser.add_argument(
        "--source", type=Path, nargs="*", default=[], metavar="MANIFEST", help="feature manifests behind a derived teacher"
    )
    parser.add_argument("--readers", type=int, metavar="N", help="threads that decode images (default: threads - 1, 1 to 8)")
    parser.add_argument(
        "--in-flight", type=int, metavar="N", help="scenes in memory at once: read, encoded, written (default: readers + 2)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="manifest.json to write")


def run(args: argparse.Namespace) -> None:
    spec = args.spec
    index = SceneIndex(args.scenes)
    same_identity(index.content, {"dataset": spec["dataset"]}, args.scenes, f"the scenes of {spec['dataset']!r}")
    teacher = registry.create("teachers", spec["teacher"])
    if not teacher.has_features:
        raise ConfigError(f"teacher {teacher.name!r} has no features to extract", fix="leave it out of the extract jobs")
    with run_record(args.out.with_name("run.json"), command="extract", spec=spec) as record:
        if teacher.is_view:
            write_view(index, spec["splits"], teacher, args.source, args.out)
        else:
            record["encoded_scenes"] = _extract(args, index, teacher)


def _extract(args: argparse.Namespace, index: SceneIndex, teacher: Teacher) -> int:
    if teacher.trained_in_workflow and args.weights is None:
        raise CheckpointError(
            f"teacher {teacher.name!r} is trained here and needs its weights",
            fix=f"pass --weights results/teachers/{teacher.name}/manifest.json",
        )
    if args.weights is not None:
        made = read_manifest(args.weights, made_by=f"snakemake --cores all {args.weights}")
        whose = {"teacher": teacher.name, "member": args.spec["teacher"]}
        same_identity(made, whose, args.weights, f"the weights of teacher {teacher.name!r}")
        check_files(args.weights, made)
    flight = _flight(args)
    shard, shards = args.spec["shard"], args.spec["shards"]
    records = records_of_shard(index, args.spec["splits"], shard, shards)
    one_grid(args.spec["store"], index, args.spec["splits"], teacher)  # before weights are loaded
    with device(args.gpus) as where:
        with enough_memory(f"the weights of teacher {teacher.name!r} were being loaded ({where})", FREER_DEVICE):
            weights = teacher.load(args.weights.parent if args.weights else None, where)
        with FeatureWriter(args.out.parent, store_spec(args.spec, index, teacher, weights), anew=args.force) as writer:
            encoded = extract_shard(index, records, teacher, writer, flight)
            writer.finish([r.scene_id for r in records], shard=(shard, shards))
    return encoded


def _flight(args: argparse.Namespace) -> Concurrency:
    usual = Concurrency.of_threads(args.threads)
    readers = usual.readers if args.readers is None else args.readers
    scenes = readers + 2 if args.in_flight is None else args.in_flight
    if readers < 1 or scenes < 1:
        raise ConfigError(f"--readers {readers} --in-flight {scenes}", allowed="1 or more of each")
    return Concurrency(readers, scenes)
