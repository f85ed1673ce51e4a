"""A store opens with plain zarr: without this package zarr shows what is inside, and the numbers are those written."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import StoreError
from pipeline.core.provenance import digest
from pipeline.features import spec as specs
from pipeline.features.dtypes import from_bfloat16_bits, to_bfloat16_bits
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures

GRID = TokenGrid(3, 4)
FRAMES = ("f000", "f020", "f010")

PLAIN = """
import json, sys
sys.modules["pipeline"] = None  # importing this package is an error
import numpy as np, zarr

group = zarr.open_group(sys.argv[1], mode="r")
scene = zarr.open_array(sys.argv[1] + "/" + sys.argv[2], mode="r")
np.save(sys.argv[3], np.stack([scene[view] for view in range(scene.shape[0])]))
found = {"attributes": dict(group.attrs), "scene": dict(scene.attrs), "axes": scene.metadata.dimension_names}
print(json.dumps(found | {"tree": str(group.tree()), "groups": sorted(group.group_keys())}))
"""
"""What a stranger does who has zarr and numcodecs."""


def tokens() -> TeacherFeatures:
    return TeacherFeatures(np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype(np.float32), GRID)


def write(folder: Path, spec: StoreSpec) -> Path:
    with FeatureWriter(folder, spec) as writer:
        writer.write("a", FRAMES, tokens())
        writer.finish()
    return folder / "manifest.json"


def opened_by_zarr(folder: Path, array: str) -> tuple[dict[str, Any], Any]:
    """What plain zarr says of a store, and the numbers of one array; in a process that has no way to this package."""
    given = [str(folder / "features.zarr"), array, str(folder / "found.npy")]
    done = subprocess.run([sys.executable, "-I", "-c", PLAIN, *given], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), np.load(folder / "found.npy")


@pytest.mark.parametrize(("dtype", "compression"), [("bfloat16", "lossless"), ("bfloat16", "none"), ("int8", "lossless")])
def test_plain_zarr_opens_a_store_and_shows_what_is_inside(tmp_path: Path, dtype: Any, compression: Any) -> None:
    layers = (("layer_4", 2), ("layer_11", 4))
    spec = StoreSpec("rooms", "oracle", "geometry", 6, 3, 4, dtype=dtype, compression=compression, layers=layers)
    manifest = write(tmp_path, spec)
    said, found = opened_by_zarr(tmp_path, "tokens.layer_11/a")
    shown = said["attributes"]
    assert (shown["dataset"], shown["teacher"], shown["kind"], shown["dtype"]) == ("rooms", "oracle", "geometry", dtype)
    assert (shown["rows"], shown["cols"], shown["window"]) == (3, 4, [0.0, 0.0, 1.0, 1.0])
    assert shown["layers"] == [["layer_4", 2], ["layer_11", 4]]
    assert shown["spec_digest"] == json.loads(manifest.read_text())["spec_digest"]
    assert said["scene"]["frame_ids"] == list(FRAMES)
    assert said["axes"] == ["view", "row", "column", "channel"]
    assert all(name in said["tree"] for name in ("tokens.layer_4", "tokens.layer_11", "(3, 3, 4, 4)"))
    stored = FeatureReader([manifest], layer="layer_11").read_stored("a", FRAMES)
    np.testing.assert_array_equal(found, stored.tokens)
    if dtype == "bfloat16":  # as the attribute "numbers" says
        assert "<< 16).view('float32')" in shown["numbers"]
        rounded = from_bfloat16_bits(to_bfloat16_bits(tokens().tokens[..., 2:]))
        np.testing.assert_array_equal((found.astype("uint32") << 16).view("float32"), rounded)


def test_what_zarr_shows_is_verified(tmp_path: Path) -> None:
    """Frames in another order there would give another program every view under a wrong name."""
    manifest = write(tmp_path, StoreSpec("rooms", "oracle", "geometry", 6, 3, 4))
    path = tmp_path / "features.zarr/tokens/a/zarr.json"
    whole = path.read_text()
    FeatureReader([manifest]).verify("a")
    path.write_text(whole.replace("f020", "f___").replace("f010", "f020").replace("f___", "f010"))
    with pytest.raises(StoreError, match="other frames than the manifest"):
        FeatureReader([manifest]).verify("a")


@pytest.mark.parametrize("content", ["", "{}", '{"zarr_format": 3, "node_type": "group"}'])
def test_a_group_of_another_content_is_described_again(tmp_path: Path, content: str) -> None:
    """One that a crash cut short, or that was changed by hand."""
    spec = StoreSpec("rooms", "oracle", "geometry", 6, 3, 4)
    write(tmp_path, spec)
    (tmp_path / "features.zarr/zarr.json").write_text(content)
    with FeatureWriter(tmp_path, spec) as writer:
        writer.write("b", FRAMES, tokens())
        writer.finish(["a", "b"])
    assert opened_by_zarr(tmp_path, "tokens/b")[0]["attributes"]["spec_digest"] == spec.digest()


def test_a_store_of_an_older_schema_is_refused_and_made_anew(tmp_path: Path, monkeypatch, capsys) -> None:
    """Schema 4 packed bfloat16 by a codec that zarr does not have."""
    older = dataclasses.replace(StoreSpec("rooms", "oracle", "geometry", 6, 3, 4), schema=4)
    monkeypatch.setattr(specs, "SCHEMA_VERSION", 4)
    manifest = write(tmp_path, older)
    monkeypatch.undo()
    assert digest(older.to_json()) == json.loads(manifest.read_text())["spec_digest"]
    with pytest.raises(StoreError, match="the store has schema 4") as caught:
        FeatureReader([manifest])
    assert caught.value.allowed is not None
    assert caught.value.allowed.startswith("schema 6")
    assert caught.value.fix == f"rm -f {manifest} && snakemake --cores all {manifest}"
    newer = write(tmp_path, StoreSpec("rooms", "oracle", "geometry", 6, 3, 4))
    assert "1 scenes are of another spec and are made anew" in capsys.readouterr().err
    FeatureReader([newer]).verify("a")
