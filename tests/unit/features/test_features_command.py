"""The command ``features`` on stores of real teachers of a small dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_rooms import make_scene, write_dataset
from PIL import Image

from pipeline.__main__ import main
from pipeline.features.inspect.picture import rows_of_scene
from pipeline.features.inspect.statistics import store_statistics
from pipeline.features.spec import StoreSpec
from pipeline.features.store import FeatureWriter
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex
from pipeline.study.paths import teacher_of
from pipeline.teachers.base import TeacherFeatures

GEOMETRY = {"name": "geometry", "kind": "geometry", "options": {"grid_rows": 6, "grid_cols": 8}}
RANDOM = {"name": "random", "kind": "random", "options": {}}
SHUFFLED = {"name": "shuffled", "kind": "shuffled", "options": {"of": "geometry", "seed": 1}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    scenes = [make_scene(f"box{i}", views=3, size=(48, 64)) for i in range(4)]
    return write_dataset(tmp_path_factory.mktemp("boxes") / "scenes", scenes)


def extract(index: SceneIndex, out: Path, teacher: dict[str, Any], *more: str, **store: Any) -> Path:
    spec = {"dataset": "boxes", "teacher": teacher, "shard": 0, "shards": 1, "splits": ["train"], "code": "x"}
    spec["store"] = {"dtype": "bfloat16", "grid": "native"} | store
    arguments = ["extract", "--spec", json.dumps(spec), "--scenes", str(index.path), "--out", str(out), *more]
    assert main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def stores(dataset: SceneIndex, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("features")
    made = {"geometry": extract(dataset, folder / "geometry" / "manifest.json", GEOMETRY)}
    made["random"] = extract(dataset, folder / "random" / "manifest.json", RANDOM, dtype="int8")
    small = {"rows": 3, "cols": 4, "window": [0.0, 0.0, 1.0, 1.0]}
    made["small"] = extract(dataset, folder / "small" / "manifest.json", GEOMETRY, grid=small)
    source = str(made["geometry"])
    made["shuffled"] = extract(dataset, folder / "shuffled" / "manifest.json", SHUFFLED, "--source", source)
    return made


def test_inspect_is_a_table(stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("geometry", "random", "shuffled")
    assert main(["features", "inspect", *(str(stores[n]) for n in names), "--json", str(tmp_path / "figures.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[1:8:2] == ["dataset", "teacher", "layer", "shards"]
    assert [line.split("|")[2].strip() for line in lines[2:5]] == list(names)
    geometry, random, shuffled = json.loads((tmp_path / "figures.json").read_text())
    assert (geometry["scenes"], geometry["views"], geometry["grid"], geometry["dtype"]) == (4, 12, "6 x 8", "bfloat16")
    assert geometry["extras"] == ["confidence"]
    assert geometry["bytes_per_scene"] * 4 == sum(
        f.stat().st_size for f in stores["geometry"].parent.glob("features.zarr/*/*/*") if f.is_file()
    )
    assert 0 < random["error"] < 1e-3
    assert shuffled["bytes_per_scene"] == 0
    assert geometry["layers"][0]["neighbour_cosine"] > geometry["layers"][0]["distant_cosine"]


def test_statistics_are_those_of_the_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = np.random.default_rng(0).normal(size=(2, 2, 3, 8)).astype(np.float32)
    tokens[..., :2] = 3.0
    spec = StoreSpec("d", "t", "t", 8, 2, 3, dtype="float32", layers=(("flat", 2), ("moving", 6)))
    with FeatureWriter(tmp_path, spec) as writer:
        writer.write("a", ("f0", "f1"), TeacherFeatures(tokens, TokenGrid(2, 3)))
        writer.finish()
    assert main(["features", "inspect", str(tmp_path / "manifest.json"), "--json", str(tmp_path / "f.json")]) == 0
    flat, moving = json.loads((tmp_path / "f.json").read_text())[0]["layers"]
    assert (flat["layer"], flat["width"], flat["dead_channels"], moving["dead_channels"]) == ("flat", 2, 1.0, 0.0)
    assert flat["mean_norm"] == pytest.approx(18**0.5)
    units = tokens[..., 2:] / np.linalg.norm(tokens[..., 2:], axis=-1, keepdims=True)
    assert moving["mean_norm"] == pytest.approx(float(np.linalg.norm(tokens[..., 2:], axis=-1).mean()), rel=1e-5)
    assert moving["distant_cosine"] == pytest.approx(float((units[0] * units[1]).sum(-1).mean()), rel=1e-4)
    beside = np.mean([(view[:, 1:] * view[:, :-1]).sum(-1).mean() for view in units])
    above = np.mean([(view[1:] * view[:-1]).sum(-1).mean() for view in units])
    assert moving["neighbour_cosine"] == pytest.approx(float((beside + above) / 2), rel=1e-4)
    assert "100.0%" in capsys.readouterr().out


def test_a_shard_without_scenes_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More shards than scenes: some are empty."""
    with FeatureWriter(tmp_path, StoreSpec("d", "empty_one", "t", 8, 2, 3)) as writer:
        writer.finish()
    manifest = str(tmp_path / "manifest.json")
    assert main(["features", "inspect", manifest, "--json", str(tmp_path / "f.json")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "| empty_one " in line]
    assert [cell.strip() for cell in line.split("|")[3:8]] == ["tokens", "1", "0", "0", "2 x 3"]
    (layer,) = json.loads((tmp_path / "f.json").read_text())[0]["layers"]
    assert (layer["width"], layer["mean_norm"]) == (8, None)
    assert main(["features", "verify", manifest, "--all"]) == 0
    assert "0 of 0 scenes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["geometry", "random", "small"])
def test_verify_encodes_again(dataset: SceneIndex, stores: dict[str, Path], name: str, capsys) -> None:
    assert main(["features", "verify", str(stores[name]), "--scenes", str(dataset.path), "-k", "2", "--all"]) == 0
    said = capsys.readouterr().out
    assert "4 of 4 scenes" in said
    assert said.count(": same") == 2


def test_verify_of_a_derived_teacher_and_of_unknown_scenes(stores: dict[str, Path], capsys) -> None:
    assert main(["features", "verify", str(stores["shuffled"]), "--all"]) == 0
    assert "derived from other features, which are unchanged" in capsys.readouterr().out
    assert main(["features", "verify", str(stores["geometry"])]) == 2
    said = capsys.readouterr().err
    assert "which scenes the features are of is not known" in said
    assert "--scenes" in said


def test_scenes_and_weights_are_found_beside_the_features(dataset: SceneIndex, tmp_path: Path, monkeypatch, capsys) -> None:
    """In the layout of results/, from any working directory; where the dataset's manifest is missing, its path is named."""
    out = extract(dataset, tmp_path / "results/features/boxes/geometry/shard0/manifest.json", GEOMETRY)
    monkeypatch.chdir(out.parent)
    assert main(["features", "verify", "manifest.json"]) == 2
    assert "results/scenes/boxes/manifest.json" in capsys.readouterr().err
    (tmp_path / "results/scenes").mkdir()
    (tmp_path / "results/scenes/boxes").symlink_to(dataset.path.parent)
    assert main(["features", "verify", "manifest.json"]) == 0
    assert capsys.readouterr().out.count(": same") == 3
    assert main(["features", "picture", "manifest.json", "--out", str(tmp_path / "picture.png")]) == 0
    assert (tmp_path / "picture.png").is_file()
    assert teacher_of(out) == tmp_path / "results/teachers/geometry/manifest.json"


def test_verify_finds_features_that_are_not_the_teachers(dataset: SceneIndex, tmp_path: Path, capsys) -> None:
    """One cell of one view is another cell's: right checksums, wrong features."""
    out = extract(dataset, tmp_path / "manifest.json", GEOMETRY)
    from pipeline.features.store import FeatureReader

    frames = dataset.records["box2"].frame_ids
    found = FeatureReader([out]).read("box2", frames)
    found.tokens[1, 3, 3] = found.tokens[1, 5, 7]
    with FeatureWriter(tmp_path, FeatureReader([out]).spec) as writer:
        source = writer._done.pop("box2").source
        writer.write("box2", frames, found, source=source)
        writer.finish()
    assert main(["features", "verify", str(out), "--scenes", str(dataset.path), "-k", "4", "--all"]) == 2
    said = capsys.readouterr()
    assert said.out.count("DIFFERENT") == 1
    assert "first box2 in" in said.err


def test_verify_names_every_damaged_scene_and_goes_on(dataset: SceneIndex, tmp_path: Path, capsys) -> None:
    """Damage is found before anything is unpacked, and the scenes behind it are compared all the same."""
    out = extract(dataset, tmp_path / "manifest.json", GEOMETRY, compression="lossless")
    for scene_id in ("box0", "box2"):
        (path,) = (tmp_path / "features.zarr/tokens" / scene_id).glob("c.*")
        data = bytearray(path.read_bytes())
        data[40] ^= 1
        path.write_bytes(data)
    assert main(["features", "verify", str(out), "--scenes", str(dataset.path), "-k", "4"]) == 2
    said = capsys.readouterr()
    assert said.out.count("are damaged (checksum of tokens of view 0") == 2
    assert said.out.count(": same") == 2
    assert "2 scenes of stored features are not what they should be, first box0 in" in said.err


def test_verify_finds_predictions_that_are_not_finite() -> None:
    """max(0, NaN) is 0 in Python."""
    from pipeline.features.inspect.verification import _extras_difference

    tokens, maps = np.ones((1, 2, 3, 4), dtype=np.float32), np.ones((1, 2, 3), dtype=np.float32)
    stored, broken = TeacherFeatures(tokens, TokenGrid(2, 3), maps), maps.copy()
    broken[0, 1, 1] = np.nan
    assert _extras_difference(stored, stored) == 0
    assert _extras_difference(TeacherFeatures(tokens, TokenGrid(2, 3), broken), stored) == float("inf")


def test_verify_refuses_another_dataset(tmp_path: Path, stores: dict[str, Path], capsys) -> None:
    other = write_dataset(tmp_path / "scenes", [make_scene("box0", views=2, size=(48, 64))])
    assert main(["features", "verify", str(stores["geometry"]), "--scenes", str(other.path)]) == 2
    assert "index" in capsys.readouterr().err


def test_picture_has_a_row_per_teacher(dataset: SceneIndex, stores: dict[str, Path], tmp_path: Path, capsys) -> None:
    out, again = tmp_path / "picture.png", tmp_path / "again.png"
    names = [str(stores[name]) for name in ("geometry", "random")]
    for path in (out, again):
        arguments = [*names, "--scenes", str(dataset.path), "--scene", "box1", "--views", "2", "--out", str(path)]
        assert main(["features", "picture", *arguments]) == 0
    assert "box1" in capsys.readouterr().out
    assert out.read_bytes() == again.read_bytes()
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert image.size[1] > image.size[0]  # four rows of two views
    assert main(["features", "picture", *names, "--scenes", str(dataset.path), "--scene", "box9", "--out", str(out)]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_padding_is_in_no_figure_and_no_colour(dataset: SceneIndex, tmp_path: Path) -> None:
    """A teacher that pads: the outer half of its rows lies outside of the image and holds other numbers."""
    random, found = np.random.default_rng(0), []
    tokens = {scene_id: random.normal(size=(3, 8, 4, 6)).astype(np.float32) for scene_id in dataset.records}
    for outside in (0.0, 50.0):
        grid = TokenGrid(8, 4, (0.0, -0.5, 1.0, 1.5))
        spec = StoreSpec("boxes", "padded", "vggt", 6, 8, 4, grid.window, dtype="float32")
        with FeatureWriter(tmp_path / str(outside), spec) as writer:
            for scene_id, inside in tokens.items():
                values = inside.copy()
                values[:, :2], values[:, 6:] = outside, outside
                writer.write(scene_id, dataset.records[scene_id].frame_ids, TeacherFeatures(values, grid))
            writer.finish()
        manifest = tmp_path / str(outside) / "manifest.json"
        figures = store_statistics([manifest]).layers[0]
        _, row = rows_of_scene(dataset.load("box0"), [manifest], (0, 2))
        assert (row.colors[:, [0, 1, 6, 7]] == 1).all(), "white"
        found.append((figures, row.fit, row.colors))
    assert found[0][:2] == found[1][:2]
    np.testing.assert_array_equal(found[0][2], found[1][2])
    inner = np.concatenate([values[:, 2:6].reshape(-1, 6) for values in tokens.values()])
    assert found[0][0].mean_norm == pytest.approx(np.linalg.norm(inner, axis=1).mean(), rel=1e-5)
