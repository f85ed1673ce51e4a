"""Damaged files are noticed: one flipped bit anywhere in a file gives its right content or an error, never another number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.benchmarks.base import MetricResult
from pipeline.core.errors import DataError, PipelineError
from pipeline.core.parquet import read_parquet
from pipeline.core.provenance import read_manifest
from pipeline.metrics import paraphrases
from pipeline.metrics.scorefile import read_scores, write_scores
from pipeline.scenes.index import SceneIndex, record_to_json
from pipeline.scenes.types import Sample


def flips(path: Path, count: int) -> list[tuple[int, int]]:
    """``count`` (byte, bit) places spread over a file, the same each time, its last bytes among them."""
    random, size = np.random.default_rng(3), path.stat().st_size
    places = [(int(random.integers(size)), int(random.integers(8))) for _ in range(count)]
    return [*places, *((size - 1 - back, 0) for back in range(12))]


def silent_changes(path: Path, read: Callable[[], object], count: int = 150) -> tuple[int, list[tuple[int, int]]]:
    """(flips that were noticed, places whose flip gave other content without an error)."""
    whole, right = path.read_bytes(), read()
    noticed, silent = 0, []
    for byte, bit in flips(path, count):
        data = bytearray(whole)
        data[byte] ^= 1 << bit
        path.write_bytes(data)
        try:
            if read() != right:
                silent.append((byte, bit))
        except PipelineError:
            noticed += 1
    path.write_bytes(whole)
    return noticed, silent


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A score file of two metrics, with single samples, replicates and metadata."""
    samples = [Sample(f"s{i}", f"room{i % 5}", "scanrefer", "grounding") for i in range(40)]
    random = np.random.default_rng(0)
    results = [
        MetricResult(name, "all", 50.0, 40, {s.sample_id: random.uniform() for s in samples}, random.normal(size=100))
        for name in ("acc@0.25", "acc@0.5")
    ]
    write_scores(tmp_path / "scanrefer.parquet", results, samples, {"dataset": "rooms", "weights": "a" * 16})
    return tmp_path / "scanrefer.parquet"


def test_flipped_bits_of_a_score_file(scores: Path) -> None:
    def read() -> object:
        found = read_scores(scores)
        return found.sets.to_json(double_precision=15), found.samples.to_json(double_precision=15), found.metadata

    noticed, silent = silent_changes(scores, read)
    assert not silent
    assert noticed > 100


def test_a_parquet_file_of_somebody_else_has_no_digest(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "theirs.parquet")
    with pytest.raises(DataError, match="carries no digest"):
        read_parquet(tmp_path / "theirs.parquet", made_by="snakemake")
    assert read_parquet(tmp_path / "theirs.parquet", made_by="", own=False).num_rows == 2


def test_flipped_bits_of_the_scene_index(tiny_rooms: SceneIndex, tmp_path: Path) -> None:
    """Poses, boxes, proposals, annotation names: all of the manifest."""
    path = tmp_path / "manifest.json"
    shutil.copy(tiny_rooms.path, path)

    def read() -> object:
        return [record_to_json(record) for record in SceneIndex(path)], SceneIndex(path).content

    noticed, silent = silent_changes(path, read, 60)
    assert not silent
    assert noticed > 40


def test_a_manifest_without_its_digest_is_refused(tmp_path: Path, tiny_rooms: SceneIndex) -> None:
    content = json.loads(tiny_rooms.path.read_text())
    del content["manifest_digest"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no digest of its own content"):
        read_manifest(tmp_path / "manifest.json", made_by="snakemake")


def test_flipped_bits_of_a_scenes_files(tiny_rooms: SceneIndex, tmp_path: Path) -> None:
    """773 of 900 flips of JPEG files were silent: a changed coefficient decodes."""
    shutil.copytree(tiny_rooms.folder, tmp_path / "rooms")
    index = SceneIndex(tmp_path / "rooms" / "manifest.json")
    record = next(iter(index))
    for kind in ("jpg", "png"):
        path = index.root / record.scene_id / f"{record.frame_ids[1]}.{kind}"

        def read() -> object:
            scene = index.load(record.scene_id)
            return scene.rgb.tobytes(), scene.depth_m.tobytes()

        noticed, silent = silent_changes(path, read, 12)
        assert not silent
        assert noticed == 24
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(PipelineError, match="files of scene 'room_train_00000' are damaged"):
        index.color(record.scene_id, record.frame_ids[0])


def test_an_annotation_file_that_was_edited_is_refused(tiny_rooms: SceneIndex, tmp_path: Path) -> None:
    shutil.copytree(tiny_rooms.folder, tmp_path / "rooms")
    index = SceneIndex(tmp_path / "rooms" / "manifest.json")
    (path,) = index.annotation_files("scanrefer", "test")
    path.write_text(path.read_text().replace("the", "thy", 1))
    with pytest.raises(DataError, match="is damaged or was edited") as error:
        index.annotation_files("scanrefer", "test")
    assert f"snakemake --cores all -f {index.path}" in str(error.value)


def test_a_damaged_paraphrase_table_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache serves all studies of a user: one flipped bit was another METEOR for ever."""
    import gzip

    source = tmp_path / "table.gz"
    with gzip.open(source, "wt", encoding="utf-8") as stream:
        stream.write("0.5\na chair\na seat\n0.2\na lamp\na light\n")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    table = paraphrases.filtered_table(source, frozenset({"a", "chair"}))
    assert table is not None
    whole = table.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2] ^= 4
    table.write_bytes(data)
    assert paraphrases.filtered_table(source, frozenset({"a", "chair"})) == table
    with gzip.open(table, "rt", encoding="utf-8") as stream:
        assert stream.read() == "0.5\na chair\na seat\n"
