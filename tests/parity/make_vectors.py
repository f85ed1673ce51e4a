"""Write tests/parity/vectors anew from whole runs of the reference code: ``python tests/parity/make_vectors.py GOLDEN``.

GOLDEN holds the runs in the layout of ``vectors/``. Of a network's run, sizes, seed and samples of every output are kept, once
the weights and images that the seed gives are shown to be those of the run. The other files are copied, packed or in part.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from reference_data import VECTORS, Run, close, places, read_tensors, seeded_images, seeded_weights
from safetensors.torch import save_file

# Factors of the cases b: activations are so small that a wrong eps of a normalisation shows.
SMALL_VGGT = {
    r"^aggregator\.(frame|global)_blocks.*qkv": 0.01,
    r"^aggregator.*gamma$": 0.02,
    r"^aggregator\.(camera|register)_token$": 0.02,
    r"patch_embed\.(cls_token|register_tokens|pos_embed|patch_embed\.)": 0.004,
    r"patch_embed\.norm\.": 0.01,
}
SMALL_PI3 = {
    r"^decoder.*qkv": 0.01,
    r"^decoder.*gamma$": 0.02,
    r"^register_token$": 0.02,
    r"^encoder\.(cls_token|register_tokens|pos_embed|patch_embed\.)": 0.004,
    r"^encoder\.norm\.": 0.01,
}
DENSE_VGGT, POINTS_PI3, POSE_FLARE = r"output_conv2\.2\.weight$", r"^point_head\.proj\.weight$", r"pose_branch\.fc2\.weight$"
SMALL_FLARE = {r"^enc_blocks\.\d+\.(attn\.proj|mlp\.fc2)\.|^patch_embed\.proj\.": 0.002}
FLARE_A = {
    "dec_blocks.0.attn.proj.bias": 113304,
    "dec_norm_fine.bias": 80,
    "enc_inject_stage2.0.bias": 12704,
    "inject_stage2.0.weight": 64,
    "patch_embed.proj.bias": 40,
    "patch_embed_coarse2.proj.bias": 4128,
    "pose_head.ffeat_updater.0.bias": 393248,
}
FLARE_B = {
    "dec_blocks.0.attn.proj.bias": 113304,
    "dec_norm_fine.bias": 104,
    "inject_stage2.0.weight": 80,
    "patch_embed.proj.bias": 52,
    "patch_embed_coarse2.proj.bias": 2344,
    "pose_head.ffeat_updater.0.bias": 294952,
}
# Case -> factors of weights by name, and random words drawn before a weight for modules that no output needs.
RUNS: dict[str, tuple[dict[str, float], dict[str, int]]] = {
    "vggt/public/public_a": ({DENSE_VGGT: 0.35}, {}),
    "vggt/public/public_b": ({DENSE_VGGT: 0.35} | SMALL_VGGT, {}),
    "pi3/public/public_a": ({POINTS_PI3: 0.2}, {}),
    "pi3/public/public_b": ({POINTS_PI3: 0.2} | SMALL_PI3, {}),
    "flare/public/public_a": ({POSE_FLARE: 0.5}, FLARE_A),
    "flare/public/public_b": ({POSE_FLARE: 0.5} | SMALL_FLARE, FLARE_B),
}
PACKED = (
    "vggt/keys_1b.json",
    "vggt/public/preprocess.json",
    "flare/keys_geometry_pose.json",
    "flare/keys_needed_for_taps.json",
    "flare/public/preprocess.json",
    "pi3/keys_pi3.json",
    "pi3/keys_pi3x.json",
    "pi3/public/preprocess.json",
)
COPIED = (
    "vggt/public/pose_codec.safetensors",
    "losses/public/align_3.safetensors",
    "losses/public/infonce_1_single.safetensors",
    "losses/public/infonce_2_multi.safetensors",
    "losses/public/infonce_3_none.safetensors",
    "posenc/public/case_2.safetensors",
)
WIDE, EVERY_PATCH, FEWER = "posenc/public/case_1.safetensors", "output/embedding_every_7th_patch", 14
"""The encoding of released width is 0.8 MB: of its patches one in FEWER is kept, every 98th of a view."""
STORED = ("image_mean", "image_std")
"""Weights that are no random numbers in the end, though some were drawn for them."""


def write_run(golden: Path, name: str) -> None:
    """Write one network case: config.json and outputs.safetensors. AssertionError where its seed gives other weights."""
    run, (scaled, drawn_before) = Run(golden / name), RUNS[name]
    config = run.config | {"scaled": scaled, "drawn_before": drawn_before}
    weights = run.weights({})
    drawn = seeded_weights({key: tuple(value.shape) for key, value in weights.items()}, config)
    kept = {f"weights/{key}": weights[key] for key in STORED if key in weights}
    for key in weights.keys() - set(STORED):
        close(drawn[key], weights[key], f"{name}: weight {key}", 3e-7)
    close(seeded_images(config), run.images, f"{name}: images", 3e-7)
    config["weights_sum"] = sum(value.double().abs().sum().item() for value in drawn.values())
    facts: dict[str, Any] = {}
    for key in sorted(run.outputs):
        flat = run.output(key).flatten()
        facts[key] = (list(run.output(key).shape), flat.abs().max().item(), flat.double().abs().mean().item())
        kept[f"output/{key}"] = flat[places(len(flat))].clone()
    (VECTORS / name).mkdir(parents=True)
    (VECTORS / name / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(kept, VECTORS / name / "outputs.safetensors", {"facts": json.dumps(facts)})


def write_fewer_patches(source: Path, target: Path) -> None:
    """Write a case of the position encoding with fewer patches of its embedding and without what no test reads."""
    tensors, metadata = read_tensors(source)
    kept = {key: value for key, value in tensors.items() if not key.startswith("info/")}
    kept[f"output/embedding_every_{7 * FEWER}th_patch"] = kept.pop(EVERY_PATCH)[:, ::FEWER].clone()
    save_file(kept, target, {"facts": json.dumps(metadata, sort_keys=True)})


def main(golden: Path) -> None:
    missing = [name for name in (*RUNS, *COPIED, WIDE, *PACKED) if not (golden / name).exists()]
    if missing:
        raise SystemExit(f"{golden} does not hold {', '.join(missing)}")
    for entry in VECTORS.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    for name in RUNS:
        write_run(golden, name)
    for name in COPIED:
        (VECTORS / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(golden / name, VECTORS / name)
    write_fewer_patches(golden / WIDE, VECTORS / WIDE)
    for name in PACKED:
        (VECTORS / f"{name}.gz").write_bytes(gzip.compress((golden / name).read_bytes(), mtime=0))
    size = sum(path.stat().st_size for path in VECTORS.rglob("*") if path.is_file())
    print(f"{VECTORS}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
