"""Look at and check cached teacher features. No rule: for people, at any time, on any store.

    python -m pipeline features inspect results/features/*/*/shard*/manifest.json
    python -m pipeline features verify results/features/rooms/vggt_rooms/shard0/manifest.json -k 5
    python -m pipeline features verify results/features/*/*/shard*/manifest.json --all
    python -m pipeline features picture results/features/rooms/*/shard*/manifest.json --out features.png

Scenes and weights are found beside the features when these lie under results/ (paths.py); elsewhere, --scenes and --weights
name them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline.core.errors import ConfigError, StoreError
from pipeline.core.provenance import write_atomic
from pipeline.core.runtime import device
from pipeline.features.inspect.picture import picture
from pipeline.features.inspect.statistics import by_store, store_statistics, text_table, to_json
from pipeline.features.inspect.verification import ShardVerifier
from pipeline.scenes.index import SceneIndex
from pipeline.study.paths import scenes_of

HELP = "look at cached teacher features: inspect (a table), verify (checksums, encode again), picture (principal components)"

_SCENES_HELP = "manifest of the dataset (default: results/scenes/D/manifest.json of the same results/)"


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _inspect_options(commands.add_parser("inspect", help="table of what is stored: sizes and statistics of a sample of views"))
    verify = commands.add_parser("verify", help="encode random scenes again and compare; --all reads every byte")
    verify.add_argument("--scenes", type=Path, metavar="MANIFEST", help=_SCENES_HELP)
    verify.add_argument("--weights", type=Path, metavar="MANIFEST", help="of a teacher trained here; found like --scenes")
    verify.add_argument("-k", type=int, metavar="N", help="scenes per shard to encode again (default 3; none with --all alone)")
    verify.add_argument("--all", action="store_true", help="read all bytes of all scenes and compare their checksums")
    verify.add_argument("--seed", type=int, default=0, metavar="N", help="which scenes (default 0)")
    verify.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="1 - cosine allowed per token (default: the stored format's own error; more for another device or precision)",
    )
    verify.add_argument("--gpus", type=int, default=argparse.SUPPRESS, metavar="N", help="GPUs (default 0: CPU)")
    picture = commands.add_parser("picture", help="PNG of each teacher's features over a scene's views, in comparable colours")
    picture.add_argument("--scenes", type=Path, metavar="MANIFEST", help=_SCENES_HELP)
    picture.add_argument("--scene", metavar="ID", help="scene (default: the first that all stores have)")
    picture.add_argument("--views", type=int, default=6, metavar="N", help="views to show (default 6)")
    picture.add_argument("--out", type=Path, required=True, metavar="PNG", help="picture to write")
    for command in (verify, picture):
        command.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST", help="feature manifests")


def _inspect_options(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument(
        "manifests", type=Path, nargs="+", metavar="MANIFEST", help="feature manifests, any datasets and teachers"
    )
    inspect.add_argument("--views", type=int, default=32, metavar="N", help="views per store to read (default 32)")
    inspect.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def run(args: argparse.Namespace) -> None:
    {"inspect": _inspect, "verify": _verify, "picture": _picture}[args.command](args)


def _inspect(args: argparse.Namespace) -> None:
    stores = [store_statistics(paths, views=_positive("--views", args.views)) for paths in by_store(args.manifests).values()]
    print("\n".join(text_table(stores)))
    if args.json:
        write_atomic(args.json, json.dumps(to_json(stores), indent=1) + "\n")


def _verify(args: argparse.Namespace) -> None:
    count = (0 if args.all and args.scenes is None else 3) if args.k is None else _positive("-k", args.k)
    bad: list[str] = []
    for manifest in args.manifests:
        shard = ShardVerifier.of(manifest)
        if shard is None:
            print(f"{manifest}: derived from other features, which are unchanged; no bytes of its own")
            continue
        if args.all:
            bad += _read_all(shard)
        if count:
            bad += _encode_again(args, shard, count)
    bad = list(dict.fromkeys(bad))
    if bad:
        raise StoreError(
            f"{len(bad)} scenes of stored features are not what they should be, first {bad[0]}",
            allowed="right checksums; the difference of the stored format (another device or precision: see --tolerance)",
            fix="remove the scenes (rm -rf FOLDER/features.zarr/*/SCENE) and extract again: snakemake --cores all -f MANIFEST",
        )


def _read_all(shard: ShardVerifier) -> list[str]:
    """Damaged scenes."""
    total, bad = 0, []
    for scene_id, found in shard.checksums():
        if isinstance(found, int):
            total += found
        else:
            print(f"{shard.manifest}: {found.what}")
            bad.append(f"{scene_id} in {shard.manifest}")
    scenes = len(shard.entries)
    print(f"{shard.manifest}: {scenes - len(bad)} of {scenes} scenes, {total:,} bytes, have the right checksums")
    return bad


def _encode_again(args: argparse.Namespace, shard: ShardVerifier, count: int) -> list[str]:
    """Scenes that are damaged or whose features differ."""
    index, bad = SceneIndex(_scenes(args.scenes, shard.manifest)), []
    with device(args.gpus) as where:
        teacher = shard.teacher(index, args.weights, where)
        for scene_id in shard.chosen(count, args.seed):
            try:
                shard.same_as_zarr(scene_id)
                found = shard.compare(scene_id, index, teacher, args.tolerance)
            except StoreError as error:
                print(f"{shard.manifest}: {error.what}")
                bad.append(f"{scene_id} in {shard.manifest}")
                continue
            print(
                f"{shard.manifest}: {scene_id}: 1 - cosine at most {found.largest:.2e}, mean {found.mean:.2e} "
                f"(allowed {found.limit:.1e}), confidence, depth and pose differ by {found.extras:.1e}: "
                f"{'same' if found.good else 'DIFFERENT'}"
            )
            if not found.good:
                bad.append(f"{scene_id} in {shard.manifest}")
    return bad


def _picture(args: argparse.Namespace) -> None:
    index = SceneIndex(_scenes(args.scenes, args.manifests[0]))
    scene, image = picture(args.manifests, index, args.scene, _positive("--views", args.views))
    write_atomic(args.out, image)
    print(f"{args.out}: scene {scene}")


def _scenes(given: Path | None, manifest: Path) -> Path:
    """The dataset's manifest: as given, or found beside the features. ConfigError when it is neither."""
    found = given or scenes_of(manifest.absolute())
    if found is None:
        raise ConfigError("which scenes the features are of is not known", where=str(manifest), fix="give --scenes MANIFEST")
    return found


def _positive(option: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{option} {value}", allowed="1 or more")
    return value
