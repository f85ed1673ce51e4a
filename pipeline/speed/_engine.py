"""The extraction engine end to end, from image files to a finished store, and the released size of VGGT on a GPU.

Weights are random: speed and memory do not depend on their values.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.core.options import Options
from pipeline.features.engine import Concurrency, extract_shard
from pipeline.features.store import FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Scene
from pipeline.speed._data import write_scenes
from pipeline.speed._measure import Row, interleaved, median_s, peak_mb, reset_peak
from pipeline.teachers._common.views import PreparedViews
from pipeline.teachers.base import Teacher, TeacherFeatures
from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.features import PREDICTION_HEADS, FeatureNetwork
from pipeline.teachers.vggt.flops import forward_flops
from pipeline.teachers.vggt.images import image_rule, pixels_to_input
from pipeline.teachers.vggt.model import VGGT

COLOUR, DEPTH = (968, 1296), (480, 640)
"""Image sizes of ScanNet in pixels (height, width)."""


class RandomVGGT(Teacher):
    """A VGGT of any size with random weights, as an extraction uses it."""

    order_dependent = True
    set_dependent = True
    reads_depth = False

    def __init__(self, config: VGGTConfig, device: str, *, bfloat16: bool, predictions: bool):
        super().__init__("vggt_random_weights", Options())
        self.config = config
        torch.manual_seed(0)
        with torch.device(device):
            network = VGGT(config, PREDICTION_HEADS if predictions else ())
        self.network = FeatureNetwork(network, (-1,), encoder=False, device=device, bfloat16=bfloat16)

    @property
    def dim(self) -> int:
        return self.config.dim

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return image_rule(height_px, width_px, self.config).grid

    def prepare(self, scene: Scene) -> PreparedViews:
        return self.network.prepare(scene)

    def start(self, prepared: PreparedViews) -> Callable[[], TeacherFeatures]:
        return self.network.start(prepared)

    def encode(self, scene: Scene) -> TeacherFeatures:
        return self.network.encode(scene)


def extract(folder: Path, index: SceneIndex, teacher: Teacher, flight: Concurrency) -> float:
    """Return the wall seconds to extract all scenes of ``index`` into a new store, which is removed."""
    records = list(index)
    grid = teacher.grid(*records[0].image_size)
    size = (teacher.dim, grid.rows, grid.cols, grid.window)
    spec = StoreSpec("bench", teacher.name, "bench", *size, compression="lossless")
    start = time.perf_counter()
    with FeatureWriter(folder / "features", spec) as writer:
        extract_shard(index, records, teacher, writer, flight)
        writer.finish()
    spent = time.perf_counter() - start
    shutil.rmtree(folder / "features")
    return spent


def overlap(folder: Path, config: VGGTConfig, scenes: int, views: int, threads: int) -> list[Row]:
    """Compare overlapped decoding, encoding and writing with sequential runs, on the CPU with a small network."""
    index = write_scenes(folder / "scenes", scenes, views, COLOUR, DEPTH)
    teacher = RandomVGGT(config, "cpu", bfloat16=False, predictions=False)
    teacher.encode(index.load(next(iter(index)).scene_id))
    flight = Concurrency.of_threads(threads)
    found = interleaved(
        {
            "alone": lambda: partial(extract, folder, index, teacher, Concurrency(readers=1, scenes=1)),
            "together": lambda: partial(extract, folder, index, teacher, flight),
        },
        3,
    )
    shutil.rmtree(folder / "scenes")
    note = f"{scenes} scenes of {views} views, small network, {flight.readers} readers, {flight.scenes} in flight"
    other = "one scene after the other"
    return [Row("extract on the CPU", found["together"], found["alone"], other, "s", "faster", note=note)]


def full_size(
    folder: Path,
    config: VGGTConfig,
    device: str,
    *,
    scenes: int,
    views: int,
    threads: int,
    colour: tuple[int, int] = COLOUR,
    matrix: int = 8192,
    predictions: bool = False,
) -> dict[str, Any]:
    """Measure a forward (time, share of the device's measured matrix peak, memory) and extraction of scenes from files."""
    index = write_scenes(folder / "scenes", scenes, views, colour, DEPTH)
    teacher = RandomVGGT(config, device, bfloat16=True, predictions=predictions)
    prepared = teacher.prepare(index.load(next(iter(index)).scene_id))
    weights_mb = _reset(device)
    teacher.start(prepared)()
    peak = _peak(device)
    images = prepared.pixels.to(device)
    forward = _forward_s(teacher.network, images, device)
    grid = prepared.grid
    flops = forward_flops(config, views, grid.rows, grid.cols, predictions=predictions)["total"]
    peak_flops = matrix_flops(device, matrix)
    flight = Concurrency.of_threads(threads)
    spent = extract(folder, index, teacher, flight)
    shutil.rmtree(folder / "scenes")
    return {
        "device": device_name(device),
        "views": views,
        "grid": [grid.rows, grid.cols],
        "forward_s": forward,
        "tflop": flops / 1e12,
        "tflop_per_s": flops / forward / 1e12,
        "matrix_tflop_per_s": peak_flops / 1e12,
        "share_of_peak": flops / forward / peak_flops,
        "start_mb": weights_mb,
        "peak_mb": peak,
        "end_to_end_scenes": scenes,
        "end_to_end_s": spent,
        "end_to_end_scenes_per_s": scenes / spent,
        "readers": flight.readers,
        "in_flight": flight.scenes,
    }


@torch.inference_mode()
def _forward_s(network: FeatureNetwork, pixels: torch.Tensor, device: str) -> float:
    images = pixels_to_input(pixels)[None]

    def run() -> None:
        network.outputs(images)
        _wait(device)

    run()
    return median_s(run, 5)


@torch.inference_mode()
def matrix_flops(device: str, size: int) -> float:
    """Return FLOP/s of a square bfloat16 matrix product: the device's best rate, measured in the same run."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    b = torch.randn(size, size, device=device, dtype=torch.bfloat16)

    def run() -> None:
        for _ in range(4):
            a @ b
        _wait(device)

    run()
    return 4 * 2 * size**3 / median_s(run, 5)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _reset(device: str) -> float:
    """Start the count of peak memory; MB in use now."""
    if not device.startswith("cuda"):
        return reset_peak()
    _wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / 1e6


def _peak(device: str) -> float:
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.startswith("cuda") else peak_mb()
