"""``python -m pipeline bench features``: what the feature store, the teacher and the extraction gain, as ratios of one run.

Everything is measured side by side in this run: the reference recipe, the raw limit of the disk, other formats, and this
project. It needs about three gigabytes of memory and six of disk under --folder (all of which is removed) and takes about four
minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import EnvironmentFaultError
from pipeline.core.provenance import versions, write_atomic
from pipeline.core.runtime import FREER_DEVICE, device, enough_memory
from pipeline.features.parallel import usual_threads
from pipeline.speed import _engine, _forward, _memory, _stores
from pipeline.speed._data import Shape
from pipeline.speed._engine import full_size
from pipeline.speed._measure import machine
from pipeline.teachers.vggt.config import RELEASED_1B, ROOMS
from pipeline.teachers.vggt.flops import forward_flops

if TYPE_CHECKING:
    from pipeline.speed._measure import Row

HELP = "feature store, VGGT and extraction against the reference recipe and the limits of the machine"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--folder", type=Path, help="where temporary files go, on the disk to be measured (default: the system's)")
    add("--out", type=Path, metavar="JSON", help="write all figures here, too")
    add("--shape", type=_numbers(4), default=(32, 28, 37, 2048), metavar="VxGxKxD", help="default 32x28x37x2048: VGGT")
    add("--student", type=int, default=14, help="side of the student's grid (default 14)")
    add("--scenes", type=int, default=5, help="scenes written per store (default 5)")
    add("--repeats", type=int, default=7, help="rounds of reading (default 7)")
    add("--memory-scenes", type=_numbers(2), default=(20, 200), metavar="FEWxMANY", help="default 20x200")
    add("--net", type=_numbers(3), default=(128, 24, 4), metavar="WIDTHxDEPTHxVIEWS", help="tiny VGGT; default 128x24x4")
    add("--extract", type=_numbers(2), default=(8, 8), metavar="SCENESxVIEWS", help="for the overlap; default 8x8")
    add("--cuda", action="store_true", help="measure VGGT-1B with random weights on a GPU, too")
    add("--cuda-scenes", type=int, default=16, help="scenes of the end-to-end extraction on the GPU (default 16)")


def _numbers(count: int) -> Any:
    def parse(text: str) -> tuple[int, ...]:
        parts = text.split("x")
        if len(parts) != count or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise argparse.ArgumentTypeError(f"{text!r} is not {count} numbers joined by x")
        return tuple(int(part) for part in parts)

    return parse


def run(args: argparse.Namespace) -> None:
    views, rows, cols, dim = args.shape
    shape = Shape(views, rows, cols, dim, args.student)
    base = args.folder or Path(tempfile.gettempdir())
    base.mkdir(parents=True, exist_ok=True)
    _check_space(base, shape, args.scenes, max(args.memory_scenes))
    folder = Path(tempfile.mkdtemp(prefix="bench-features-", dir=base))
    found: dict[str, Any] = {"machine": machine(), "versions": versions(), "shape": asdict(shape)}
    found["store_threads"] = usual_threads()
    try:
        if args.cuda:  # first: without a GPU, or without its memory, it ends here and not after minutes
            _say("VGGT-1B on the GPU")
            found["gpu"] = _on_gpu(args, folder)
        table = _stores.measure(folder / "stores", shape, args.scenes, args.repeats, _say)
        shutil.rmtree(folder / "stores")
        _say(f"peak memory with {args.memory_scenes[0]} and {args.memory_scenes[1]} scenes")
        table += _memory.measure(folder / "memory", shape, args.memory_scenes)
        _say("a tiny VGGT against a straightforward one")
        width, depth, net_views = args.net
        task = {"width": width, "depth": depth, "views": net_views, "rows": rows, "cols": cols, "repeats": 3}
        table += _forward.measure(task)
        _say("extraction, overlapped and not")
        scenes, extract_views = args.extract
        table += _engine.overlap(folder, ROOMS, scenes, extract_views, args.threads)
        found["rows"] = [row.to_json() for row in table]
        found["tflop"] = {part: n / 1e12 for part, n in forward_flops(RELEASED_1B, 32, 28, 37, predictions=True).items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(report(found, table))
    if args.out:
        write_atomic(args.out, json.dumps(found, indent=1, sort_keys=True) + "\n")


def _on_gpu(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    without = "leave --cuda out, or run it on a machine with a GPU"
    with device(max(1, args.gpus), without=without) as where, enough_memory("VGGT-1B was measured", FREER_DEVICE):
        return full_size(folder, RELEASED_1B, where, scenes=args.cuda_scenes, views=32, threads=args.threads)


def _check_space(folder: Path, shape: Shape, scenes: int, memory_scenes: int) -> None:
    native = 2 * shape.views * shape.rows * shape.cols * shape.dim
    pooled = 2 * shape.views * shape.student**2 * shape.dim
    # Ours in three formats and two grids, the raw files, one file of each other format; then the many small scenes alone.
    needed = max(scenes * (3.5 * native + 2.5 * pooled) + 4 * native, memory_scenes * pooled) + 50e6
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        raise EnvironmentFaultError(
            f"the benchmark needs {needed / 1e9:.1f} GB of disk and {free / 1e9:.1f} GB are free",
            where=str(folder),
            fix="choose another --folder, or fewer --memory-scenes",
        )


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def report(found: dict[str, Any], rows: Sequence[Row]) -> str:
    """Render the figures as Markdown that is readable as plain text."""
    where = found["machine"]
    lines = [
        f"Measured on {where['cpu']}, {where['cores']} cores, {where['memory_gb']} GB, {where['system']}, "
        f"OMP_NUM_THREADS {where['threads']}; the store packs and unpacks with {found['store_threads']} threads",
        "",
        *lines_of(rows),
        "",
        *_settings(rows),
        "",
        "FLOP of VGGT-1B for 32 views of 392 x 518 pixels, in 10^12: "
        + ", ".join(f"{part} {value:.2f}" for part, value in found["tflop"].items()),
    ]
    if "gpu" in found:
        lines += ["", *(f"{name}: {_number(value)}" for name, value in found["gpu"].items())]
    return "\n".join(lines)


def lines_of(rows: Sequence[Row]) -> list[str]:
    """Return one line per row: both measurements, their ratio, and the target."""
    cells = [["what", "ours", "against", "it takes", "ratio", "target", "note"]]
    for row in rows:
        sign = ">=" if row.kind == "faster" else "<="
        verdict = "" if row.target is None else f"{sign} {row.target:.3g} {'met' if row.met else 'MISSED'}"
        times = "x faster" if row.kind == "faster" else "of it"
        ours, other = (f"{_number(value)} {row.unit}" for value in (row.ours, row.other))
        cells.append([row.name, ours, row.other_name, other, f"{row.ratio:.3g} {times}", verdict, row.note])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _settings(rows: Sequence[Row]) -> list[str]:
    """Return for each setting of the store the number of targets it meets, and those it misses."""
    lines = ["Targets by setting of the store:"]
    for setting in dict.fromkeys(row.name.split(": ")[0] for row in rows if ": " in row.name and row.target is not None):
        judged = [row for row in rows if row.name.startswith(f"{setting}: ") and row.target is not None]
        missed = [f"{row.name.split(': ')[1]} against {row.other_name}" for row in judged if not row.met]
        lines.append(
            f"* {setting}: {len(judged) - len(missed)} of {len(judged)}" + f" (missed: {'; '.join(missed)})" * bool(missed)
        )
    return lines


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)
