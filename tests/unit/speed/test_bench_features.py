"""``bench features`` at a tiny size: its ratios come from its own measurements. No test here asserts a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.__main__ import main
from pipeline.core.weights import initialise
from pipeline.features.dtypes import STATED_ERROR
from pipeline.speed import _engine, features
from pipeline.speed._data import SPECIAL, Shape, features_of, reference_tokens
from pipeline.speed._forward import Straightforward, tiny_config
from pipeline.speed._measure import Row, drop_cache, median_s, peak_mb, reset_peak
from pipeline.teachers.vggt.aggregator import Aggregator
from pipeline.teachers.vggt.config import RELEASED_1B, ROOMS, VGGTConfig
from pipeline.teachers.vggt.flops import forward_flops

TINY = ["--shape", "3x4x5x64", "--student", "2", "--scenes", "2", "--repeats", "2", "--memory-scenes", "2x4"]
TINY += ["--net", "64x1x2", "--extract", "2x2"]
FULL: dict = {}
"""How ``bench features --cuda`` called the part for a GPU."""


@contextmanager
def cpu_for_a_gpu(gpus: int, **_: str) -> Iterator[str]:
    """Stands in for ``pipeline.core.runtime.device`` on machines without a GPU."""
    FULL["gpus"] = gpus
    yield "cpu"


def small_for_full_size(folder: Path, config: VGGTConfig, device: str, **how: Any) -> dict[str, Any]:
    """The part for a GPU as it is, with a small network, small images and few views; what it was asked for is noted."""
    FULL.update(how, config=config, device=device)
    return FULL_SIZE(folder, ROOMS, device, **how | {"views": 2}, colour=(48, 64), matrix=64)


FULL_SIZE = _engine.full_size


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """Figures and printed table of one tiny run, its part for a GPU on the CPU."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_engine, "COLOUR", (48, 64))
        patch.setattr(_engine, "DEPTH", (32, 48))
        patch.setattr("pipeline.speed.features.device", cpu_for_a_gpu)
        patch.setattr("pipeline.speed.features.full_size", small_for_full_size)
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        given = ["--folder", str(folder / "work"), "--out", str(folder / "out.json"), "--cuda", "--cuda-scenes", "3", *TINY]
        assert main(["bench", "features", *given]) == 0
    assert list((folder / "work").iterdir()) == [], "temporary files were left behind"
    return json.loads((folder / "out.json").read_text()), "\n".join(printed)


def test_every_ratio_is_that_of_its_two_measurements(measured: tuple[dict, str]) -> None:
    rows = measured[0]["rows"]
    assert len(rows) > 15
    for row in rows:
        assert row["ours"] > 0, row["name"]
        assert row["other"] > 0, row["name"]
        ratio = row["other"] / row["ours"] if row["kind"] == "faster" else row["ours"] / row["other"]
        assert row["ratio"] == pytest.approx(ratio), row["name"]
        if row["target"] is not None:
            assert row["met"] == (ratio >= row["target"] if row["kind"] == "faster" else ratio <= row["target"])


def test_what_the_issue_asks_for_is_measured(measured: tuple[dict, str]) -> None:
    targets = {(row["name"], row["other_name"]): row["target"] for row in measured[0]["rows"] if row["target"] is not None}
    reference, raw = "savez_compressed float32", "numpy.memmap, raw bytes"
    for dtype in ("bfloat16", "bfloat16 lossless", "int8"):
        assert targets[(f"native grid, {dtype}: bytes of a scene", reference)] == 1 / 2
        assert targets[(f"2 x 2 grid, {dtype}: bytes of a scene", reference)] == 1 / 10
    for grid in ("native grid, bfloat16", "native grid, bfloat16 lossless", "2 x 2 grid, bfloat16", "native grid, int8"):
        assert targets[(f"{grid}: write a scene", reference)] == 25
        assert targets[(f"{grid}: read a scene", reference)] == 15
        assert targets[(f"{grid}: read one view", reference)] == 100
    assert targets[("native grid, bfloat16: write a scene", raw)] == 0.5
    assert targets[("native grid, bfloat16: read, bytes as stored", raw)] == 0.6
    assert targets[("native grid, bfloat16 lossless: write a scene", raw)] == 0.5
    assert targets[("native grid, bfloat16 lossless: read, unpacked", raw)] == 0.3
    assert {"write peak of 4 scenes", "read peak of 4 scenes"} <= {name for name, _ in targets}
    compared = {(row["name"], row["other_name"]) for row in measured[0]["rows"]}
    for setting in ("bfloat16", "bfloat16 lossless"):
        for other in ("plain zarr", "safetensors", "WebDataset"):
            for what in ("bytes of a scene", "write a scene", "read"):
                assert (f"native grid, {setting}: {what}", other) in compared
        assert (f"native grid, {setting}: read", "zarr-python's reader") in compared
    names = [row["name"] for row in measured[0]["rows"]]
    assert sum(name.startswith("VGGT 64 wide") for name in names) == 2
    assert "extract on the CPU" in names
    assert measured[0]["tflop"]["total"] == pytest.approx(
        forward_flops(RELEASED_1B, 32, 28, 37, predictions=True)["total"] / 1e12
    )
    assert measured[0]["machine"]["cores"] >= 1


def test_bytes_are_those_on_disk(measured: tuple[dict, str]) -> None:
    """bfloat16 takes two bytes a number; what comes on top is the file's index and description."""
    rows = {(row["name"], row["other_name"]): row for row in measured[0]["rows"]}
    plain = rows[("native grid, bfloat16: bytes of a scene", "float32, uncompressed")]
    assert plain["other"] == 4 * 3 * (SPECIAL + 4 * 5) * 64
    assert 2 * 3 * 4 * 5 * 64 <= plain["ours"] < 2 * 3 * 4 * 5 * 64 + 2000
    pooled = rows[("2 x 2 grid, bfloat16: bytes of a scene", "float32, uncompressed")]
    assert 2 * 3 * 2 * 2 * 64 <= pooled["ours"] < 2 * 3 * 2 * 2 * 64 + 2000


def test_what_storing_costs_a_token_stands_beside_the_bytes(measured: tuple[dict, str]) -> None:
    notes = {r["name"]: r["note"] for r in measured[0]["rows"] if r["other_name"] == "savez_compressed float32"}
    said = {name: float(note.split("<= ")[1]) for name, note in notes.items() if name.endswith("bytes of a scene")}
    assert said.pop("native grid, bfloat16: bytes of a scene") == STATED_ERROR["bfloat16"]
    int8 = [error for name, error in said.items() if "int8" in name]
    assert len(int8) == 2
    assert all(0 < error < STATED_ERROR["int8"] for error in int8), "measured, not the bound"


def test_the_table_is_readable_and_complete(measured: tuple[dict, str]) -> None:
    rows, printed = measured[0]["rows"], measured[1]
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) == len(rows) + 2
    assert len({len(line) for line in lines}) == 1
    for row, line in zip(rows, lines[2:], strict=True):
        assert row["name"] in line
        assert ("met" in line or "MISSED" in line) == (row["target"] is not None)
    assert "global blocks" in printed
    settings = {line[2:].split(": ")[0]: line for line in printed.splitlines() if line.startswith("* ")}
    for setting, line in settings.items():
        judged = [row for row in rows if row["name"].startswith(f"{setting}: ") and row["target"] is not None]
        assert f": {sum(row['met'] for row in judged)} of {len(judged)}" in line
        assert all((row["name"].split(": ")[1] in line) for row in judged if not row["met"])
    assert len(settings) == 6


def test_rows_judge_both_ways() -> None:
    fast = Row("read", 2.0, 10.0, "x", "s", "faster", 6)
    assert (fast.ratio, fast.met) == (5.0, False)
    small = Row("bytes", 2.0, 10.0, "x", "bytes", "smaller", 0.5)
    assert (small.ratio, small.met) == (0.2, True)
    assert Row("plain", 1.0, 1.0, "x", "s", "faster").met is None
    table = features.lines_of([fast, small])
    assert ">= 6 MISSED" in table[2]
    assert "<= 0.5 met" in table[3]


@torch.inference_mode()
def test_the_straightforward_network_gives_the_same_numbers() -> None:
    config = tiny_config(64, 3)
    aggregator = Aggregator(config).eval()
    initialise(aggregator, 0)
    images = torch.rand(1, 3, 3, 2 * config.patch, 3 * config.patch)
    plain, ours = Straightforward(aggregator)(images), aggregator(images, keep=range(3))
    assert len(plain) == 3
    for layer, value in enumerate(plain):
        torch.testing.assert_close(value, ours[layer], atol=1e-4, rtol=1e-4)


def test_full_size_runs_end_to_end_on_the_cpu_with_a_small_network(tmp_path: Path) -> None:
    """The part for a GPU, run on this machine's CPU with the network of size rooms."""
    found = _engine.full_size(
        tmp_path, ROOMS, "cpu", scenes=2, views=2, threads=1, colour=(48, 64), matrix=64, predictions=True
    )
    assert found["grid"] == [6, 8]
    assert found["tflop"] == pytest.approx(forward_flops(ROOMS, 2, 6, 8, predictions=True)["total"] / 1e12)
    assert found["tflop_per_s"] == pytest.approx(found["tflop"] / found["forward_s"])
    assert found["share_of_peak"] == pytest.approx(found["tflop_per_s"] / found["matrix_tflop_per_s"])
    assert found["end_to_end_scenes_per_s"] == pytest.approx(2 / found["end_to_end_s"])
    assert list(tmp_path.iterdir()) == []


def test_the_part_for_a_gpu_is_asked_for_the_released_size_and_printed(measured: tuple[dict, str]) -> None:
    gpu, printed = measured[0]["gpu"], measured[1]
    assert (FULL["config"], FULL["views"], FULL["scenes"], FULL["gpus"]) == (RELEASED_1B, 32, 3, 1)
    assert gpu["end_to_end_scenes"] == 3
    for name in ("device", "forward_s", "share_of_peak", "peak_mb", "end_to_end_scenes_per_s"):
        assert f"\n{name}: " in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told_before_anything_is_measured(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.speed._stores.measure", lambda *_: pytest.fail("minutes are spent first"))
    assert main(["bench", "features", "--cuda", "--folder", str(tmp_path), *TINY]) == 2
    message = capsys.readouterr().err
    assert "1 GPU asked for and none can be used" in message
    assert "leave --cuda out" in message
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_without_room_is_told(tmp_path: Path, capsys, monkeypatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr("pipeline.speed.features.device", cpu_for_a_gpu)
    monkeypatch.setattr("pipeline.speed.features.full_size", full)
    assert main(["bench", "features", "--cuda", "--folder", str(tmp_path), *TINY]) == 2
    assert "memory ran out while VGGT-1B was measured" in capsys.readouterr().err


def test_data_has_the_shape_and_scale_of_a_teachers() -> None:
    shape = Shape(2, 3, 4, 512, 2)
    tokens = reference_tokens(shape)
    assert tokens.shape == (2, SPECIAL + 12, 512)
    assert tokens.dtype == np.float32
    scales = tokens.std((0, 1))
    assert np.quantile(scales, 0.99) > 5 * np.median(scales), "a few channels are much larger than most"
    np.testing.assert_array_equal(features_of(shape, tokens).tokens[1, 2, 3], tokens[1, -1])


def test_measuring_tools(tmp_path: Path) -> None:
    calls: list[int] = []
    assert median_s(lambda: calls.append(1), 3) >= 0
    assert len(calls) == 3
    (tmp_path / "x").write_bytes(b"1" * 5000)
    assert drop_cache([tmp_path / "x"])
    assert (tmp_path / "x").read_bytes() == b"1" * 5000
    before = reset_peak()
    block = np.ones(8_000_000)
    assert peak_mb() - before > 50
    del block


def test_mistakes_are_told(tmp_path: Path, capsys, monkeypatch) -> None:
    with pytest.raises(SystemExit) as found:
        main(["bench", "features", "--shape", "32x28x37"])
    assert found.value.code == 2
    assert "not 4 numbers joined by x" in capsys.readouterr().err
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**6}))
    assert main(["bench", "features", "--folder", str(tmp_path)]) == 2
    assert "GB of disk" in capsys.readouterr().err
