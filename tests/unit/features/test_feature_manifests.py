"""Manifests and journals that were changed by hand or by a fault: a message, never a wrong number or a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.core.errors import PipelineError, StoreError
from pipeline.core.provenance import digest, write_manifest
from pipeline.features.journal import Journal
from pipeline.features.spec import StoreSpec
from pipeline.features.store import FeatureReader, FeatureWriter

NAN = float("nan")

SPECS: list[tuple[str, Any]] = [
    ("dim", 5.0),
    ("dim", True),
    ("rows", "3"),
    ("rows", 0),
    ("rows", -3),
    ("cols", 4.0),
    ("window", [0, 0, 1]),
    ("window", [0, 0, NAN, 1]),
    ("window", [1, 1, 0, 0]),
    ("window", "abcd"),
    ("layers", [["tokens", 5.0]]),
    ("layers", 5),
    ("native", {"rows": 0, "cols": 2, "window": [0, 0, 1, 1]}),
    ("native", "x"),
    ("member", 3),
    ("weights", None),
    ("teacher", None),
]

ENTRIES: list[tuple[str, Any]] = [
    ("bytes", None),
    ("bytes", "100"),
    ("error", "x"),
    ("error", NAN),
    ("error", 5.0),
    ("frame_ids", "abc"),
    ("frame_ids", [["f"], ["g"], ["h"]]),
    ("frame_ids", []),
    ("views", {"tokens": []}),
    ("views", []),
]


def change(manifest: Path, how: Callable[[dict[str, Any]], None], *, right: bool = True) -> Path:
    """Change a manifest; ``right``: put digests right again as far as they can be computed, as a forger would."""
    content = json.loads(manifest.read_text())
    content.pop("manifest_digest")
    how(content)
    if right:
        for entry in content["scenes"].values():
            if isinstance(entry.get("views"), dict):
                entry["checksum"] = digest([entry["frame_ids"], sorted(entry["views"].items())])
        if not any(isinstance(v, float) and v != v for v in content["spec"]["window"]):
            content["spec_digest"] = digest(content["spec"])
        sums = sorted((scene, entry.get("checksum", "")) for scene, entry in content["scenes"].items())
        content["digest"] = digest([content["spec_digest"], sums])
    try:
        write_manifest(manifest, content)
    except ValueError:  # a NaN cannot be written as a manifest
        manifest.write_text(json.dumps(content))
    return manifest


def test_the_forger_of_these_tests_knows_the_digests(complete_shard: Path, frames) -> None:
    """Else they would be refused for their digests alone."""
    path = change(complete_shard, lambda content: content["spec"].update(weights="other"))
    assert FeatureReader([path]).read("a", frames).tokens.shape == (3, 3, 4, 5)


@pytest.mark.parametrize(("key", "value"), SPECS)
def test_specs_that_are_none(complete_shard: Path, key: str, value: Any) -> None:
    path = change(complete_shard, lambda content: content["spec"].update({key: value}))
    with pytest.raises(PipelineError, match=r"spec|grid|width|contradicts its own digest"):
        FeatureReader([path])


@pytest.mark.parametrize(("key", "value"), ENTRIES)
def test_scene_entries_that_are_none(complete_shard: Path, key: str, value: Any) -> None:
    path = change(complete_shard, lambda content: content["scenes"]["a"].update({key: value}))
    with pytest.raises(StoreError, match=r"scene entry (is malformed|contradicts its own)|no digest of its own"):
        FeatureReader([path])


@pytest.mark.parametrize(("key", "value"), [("digest", "0" * 16), ("spec_digest", "0" * 16)])
def test_a_manifest_that_was_changed_is_refused(complete_shard: Path, key: str, value: str) -> None:
    path = change(complete_shard, lambda content: content.update({key: value}), right=False)
    with pytest.raises(StoreError, match="contradicts its own digests"):
        FeatureReader([path])


def test_a_changed_word_of_the_spec_or_a_missing_scene_is_seen(complete_shard: Path) -> None:
    """The numbers are read all the same, but they are not those of that teacher, of those scenes."""
    whole = complete_shard.read_text()
    for how in (lambda content: content["spec"].update(weights="other"), lambda content: content["scenes"].pop("a")):
        complete_shard.write_text(whole)
        with pytest.raises(StoreError, match="contradicts its own digests"):
            FeatureReader([change(complete_shard, how, right=False)])


def test_a_huge_grid_asks_for_no_memory(complete_shard: Path, frames) -> None:
    path = change(complete_shard, lambda content: content["spec"].update(rows=10**9))
    with pytest.raises(StoreError, match=r"zarr\.json describes"):
        FeatureReader([path]).read("a", frames)


@pytest.mark.parametrize("scene_id", ["../../a", "..", "/etc", "a/b", ""])
def test_scene_ids_never_leave_the_store(complete_shard: Path, scene_id: str) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["scenes"][scene_id] = content["scenes"].pop("a")

    with pytest.raises(PipelineError, match="not a valid id"):
        FeatureReader([change(complete_shard, rename)])


def test_a_journal_line_of_another_folder_removes_nothing(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    """A line "../../../precious" whose bytes are right would make finish remove that folder."""
    store, precious = tmp_path / "shard0", tmp_path / "precious"
    with FeatureWriter(store, spec) as writer:
        writer.write("a", frames, features_of("a"))
        entry = writer._done["a"]
    precious.mkdir()
    (precious / "data").write_bytes(bytes(entry.bytes))
    Journal(store / "journal.jsonl").append("../../../precious", entry)
    with FeatureWriter(store, spec) as writer:
        assert not writer.is_done("../../../precious")
        writer.finish(["a"])
    assert (precious / "data").is_file()


def test_one_bad_byte_of_a_journal_costs_one_scene(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    with FeatureWriter(tmp_path, spec) as writer:
        for scene_id in "abc":
            writer.write(scene_id, frames, features_of(scene_id))
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:40] + b"\xff" + lines[2][41:]
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    with FeatureWriter(tmp_path, spec) as writer:
        assert [writer.is_done(s) for s in "abc"] == [True, False, True]


@pytest.mark.parametrize("place", ["manifest.json", "."])
def test_a_folder_instead_of_a_manifest(complete_shard: Path, place: str, capsys) -> None:
    path = complete_shard.parent / place
    if path == complete_shard:
        complete_shard.unlink()
        path.mkdir()
    assert main(["features", "inspect", str(path)]) == 2
    assert "cannot be read (Is a directory)" in capsys.readouterr().err


def test_frames_and_sources_of_a_view_are_texts(tmp_path: Path, complete_shard: Path, spec: StoreSpec) -> None:
    from pipeline.features.manifest import ViewEntry, ViewManifest, source_reference

    path = tmp_path / "view.json"
    reference = (source_reference(complete_shard, path),)
    for entry in (ViewEntry("../a", ("f",)), ViewEntry(["a"], ("f",)), ViewEntry("a", ()), ViewEntry("a", (3,))):  # type: ignore[arg-type]
        ViewManifest(spec, {"x": entry}, reference).write(path)
        with pytest.raises(PipelineError, match=r"not a valid id|malformed"):
            FeatureReader([path])
    ViewManifest(spec, {"x": ViewEntry("a", ("f",))}, reference).write(path)
    np.testing.assert_array_equal(
        FeatureReader([path]).read("x", ("f",)).tokens, FeatureReader([complete_shard]).read_view("a", 0).tokens
    )
