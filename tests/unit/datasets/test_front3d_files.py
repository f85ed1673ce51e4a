"""Reading of 3D-FRONT houses and 3D-FUTURE models: transforms, faults, words."""

from __future__ import annotations

import json
from pathlib import Path

import front3d_files as files
import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import DataError
from pipeline.datasets._film.catalog import CATEGORIES
from pipeline.datasets._film.catalog import COLOURS as ROOM_COLOURS
from pipeline.datasets.front3d import model as models
from pipeline.datasets.front3d.faults import NOTES, Tally
from pipeline.datasets.front3d.house import read_house, rotation
from pipeline.datasets.front3d.model import ModelStore, sample
from pipeline.datasets.front3d.shell import FloorPlan
from pipeline.datasets.front3d.wavefront import read_obj
from pipeline.datasets.front3d.words import COLOURS, FRONT_WORDS, NOUNS, SUPER_NOUNS, colour_numbers, main_colour, noun_of


def bedroom() -> dict:
    return files.house([files.room("MasterBedroom", "MasterBedroom-1")])


def read(tmp_path: Path, content: dict, *, refuse: bool = False) -> tuple[list, Tally]:
    tally = Tally(refuse=refuse)
    return read_house(files.write_house(tmp_path, "house-x", content), tally), tally


# ---------------------------------------------------------------------- houses


def test_a_child_is_scaled_then_turned_then_moved(tmp_path: Path) -> None:
    content = bedroom()
    child = next(c for c in content["scene"]["room"][0]["children"] if c["ref"].endswith("/model"))
    half = np.radians(90.0) / 2
    child |= {"pos": [10.0, 1.0, -2.0], "rot": [0.0, np.sin(half), 0.0, np.cos(half)], "scale": [2.0, 1.0, 3.0]}
    (room,), tally = read(tmp_path, content)
    _, placement = room.furniture[0]
    # 90 degrees about y (up) takes +x to -z and +z to +x.
    np.testing.assert_allclose(
        placement.apply(np.array([[1.0, 0.5, 0.0], [0, 0, 1.0]])), [[10, 1.5, -4], [13, 1, -2]], atol=1e-9
    )
    assert not tally.counts


def test_rotation_agrees_with_scipy() -> None:
    from scipy.spatial.transform import Rotation

    for quaternion in np.random.default_rng(0).normal(size=(20, 4)):
        unit = quaternion / np.linalg.norm(quaternion)
        np.testing.assert_allclose(rotation(unit), Rotation.from_quat(unit).as_matrix(), atol=1e-12)


def test_a_room_holds_its_furniture_and_building(tmp_path: Path) -> None:
    (room,), tally = read(tmp_path, bedroom())
    assert [f.jid for f, _ in room.furniture] == [jid for jid, *_ in files.ROOMS["MasterBedroom"]]
    assert [p.kind for p, _ in room.parts] == ["Floor", "CustomizedCeiling", *["WallInner"] * 4, "Door", "Window"]
    assert tally.text() == ""


def test_invalid_furniture_and_unknown_children_are_counted(tmp_path: Path) -> None:
    content = bedroom()
    content["furniture"][0]["valid"] = False
    del content["furniture"][1]["valid"]
    content["scene"]["room"][0]["children"].append(
        {"ref": "nowhere", "pos": [0, 0, 0], "rot": [0, 0, 0, 1], "scale": [1, 1, 1]}
    )
    (room,), tally = read(tmp_path, content, refuse=True)
    assert len(room.furniture) == len(files.ROOMS["MasterBedroom"]) - 2
    assert tally.counts == {
        "furniture that the release marks as invalid": 2,
        "child of a room that names nothing in its file": 1,
    }


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"pos": [0, float("nan"), 0]}, "transform that is not finite"),
        ({"pos": [0, 0]}, "transform that is not finite"),
        ({"rot": ["a", 0, 0, 1]}, "transform that is not finite"),
        ({"rot": None}, "transform that is not finite"),
        ({"pos": [0, 1e300, 0]}, "transform that is not finite"),
        ({"rot": [0, 0, 0, 0]}, "transform of size zero"),
        ({"scale": [1, 0, 1]}, "transform of size zero"),
        ({"scale": [1, float("inf"), 1]}, "transform that is not finite"),
    ],
)
def test_a_bad_transform_is_counted_or_refused_by_name(tmp_path: Path, change: dict, kind: str) -> None:
    content = bedroom()
    child = content["scene"]["room"][0]["children"][-1]
    child.update(change)
    (room,), tally = read(tmp_path, content)
    assert tally.counts == {kind: 1}
    assert len(room.furniture) == len(files.ROOMS["MasterBedroom"]) - 1
    with pytest.raises(DataError, match=kind) as caught:
        read(tmp_path, content, refuse=True)
    assert "house-x.json: room MasterBedroom-1, child" in str(caught.value)
    assert child["ref"] in str(caught.value)


def test_damaged_meshes_and_ids_are_counted(tmp_path: Path) -> None:
    content = bedroom()
    content["mesh"][0]["faces"] = [0, 1, 99]
    content["mesh"][1]["xyz"] = [0.0, 1.0]
    content["mesh"][2]["faces"] = []
    content["furniture"][0]["jid"] = "../../etc"
    content["furniture"][1] = "text"
    content["furniture"][2]["jid"] = "9" * 400  # longer than a file name may be
    content["scene"]["room"] += [{"instanceid": "../up", "children": []}, {"instanceid": "MasterBedroom-1"}, 3]
    (room,), tally = read(tmp_path, content)
    assert tally.counts["damaged item"] == 4
    assert tally.counts["unusable model id"] == 2
    assert tally.counts["room without a usable id"] == 2
    assert tally.counts["room given twice"] == 1
    assert tally.counts["child of a room that names nothing in its file"] == 1, "the text; what is damaged is counted once"
    assert "furniture that the release marks as invalid" not in tally.counts
    assert "mesh[0]" in tally.text()
    assert "../../etc" in tally.text()
    assert [p.kind for p, _ in room.parts] == [*["WallInner"] * 3, "Door", "Window"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ('{"furniture": [', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ("{}", "furniture is not a list"),
        ('{"furniture": [], "mesh": []}', "scene is not a JSON object"),
        ('{"furniture": [], "mesh": [], "scene": {}}', "room is not a list"),
    ],
)
def test_what_is_no_house_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_house(path, Tally())
    assert "bad.json" in str(caught.value)


def test_a_tally_names_the_first_few() -> None:
    tally = Tally()
    for number in range(NOTES + 4):
        tally.fault("fault", f"item {number}", "file")
    both = Tally()
    both.add(json.loads(json.dumps(tally.to_json())))
    both.add(tally.to_json())
    assert both.counts == {"fault": 2 * (NOTES + 4)}
    assert "item 2" in both.text()
    assert "item 3" not in both.text()


# ---------------------------------------------------------------------- models


def test_models_keep_sizes_textures_and_categories(tmp_path: Path) -> None:
    files.write_models(tmp_path)
    store = ModelStore(tmp_path)
    bed = store.get("bed-1")
    np.testing.assert_allclose([bed.vertices.min(0), bed.vertices.max(0)], [[-0.8, 0, -1], [0.8, 1, 1]])
    assert bed.triangles.shape == (24, 3)
    assert bed.texture is not None
    assert bed.texture.shape == (16, 16, 3)
    assert (bed.category, bed.super_category, bed.colour) == ("King-size Bed", "Bed", "blue")
    np.testing.assert_allclose(bed.albedo.mean(0) * 255, (40, 60, 170), atol=10)
    assert store.has("bed-1")
    assert not store.has("bed-2")


def test_colours_of_the_models_are_named(tmp_path: Path) -> None:
    files.write_models(tmp_path)
    store = ModelStore(tmp_path)
    named = {jid: store.get(jid).colour for jid in files.MODELS}
    expected = {"robe-1": "white", "desk-1": "brown", "chair-1": "red", "chair-2": "green", "sofa-1": "gray", "tea-1": "black",
                "shelf-1": "beige", "stool-1": "orange", "lamp-1": "yellow"}  # fmt: skip
    assert {jid: named[jid] for jid in expected} == expected


def test_a_model_may_state_its_category_itself_and_lack_a_texture(tmp_path: Path) -> None:
    files.write_model(tmp_path / "m", files.MODELS["bed-1"][3], (255, 0, 0))
    (tmp_path / "m" / "texture.png").unlink()
    (tmp_path / "m" / "model_info.json").write_text('{"super-category": "Sofa", "category": null}')
    model = ModelStore(tmp_path).get("m")
    assert (model.category, model.super_category) == ("", "Sofa")
    assert model.texture is None
    assert model.uv is None
    assert model.colour == "gray"


def test_the_cache_is_bounded_and_drops_the_least_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_models(tmp_path)
    store = ModelStore(tmp_path)
    size = max(store.get(jid).bytes for jid in ("bed-1", "robe-1", "stand-1"))
    read = []
    original = models.read_obj
    monkeypatch.setattr(models, "read_obj", lambda path: read.append(path.parent.name) or original(path))
    small = ModelStore(tmp_path, limit=2 * size)
    for jid in ("bed-1", "robe-1", "bed-1", "stand-1", "desk-1", "bed-1"):
        small.get(jid)
        assert small.held <= 2 * size or len(small._models) == 1
    assert read[:3] == ["bed-1", "robe-1", "stand-1"]
    assert small.held == sum(m.bytes for m in small._models.values())


@pytest.mark.parametrize(
    "face", ["f 1 2 3 4", "f 1/1 2/2 3/3 4/4", "f 1//1 2//1 3//1 4//1", "f -4 -3 -2 -1", "f 1/1/1 2/2/1 3/3/1 4/4/1"]
)
def test_obj_faces_in_every_form(tmp_path: Path, face: str) -> None:
    text = "# c\nv 0 0 0\nv 1 0 0 0.5 0.5 0.5\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1 0\nvt 0 1\nvn 0 0 1\n" + face
    (tmp_path / "a.obj").write_text(text)
    vertices, triangles, uv = read_obj(tmp_path / "a.obj")
    assert vertices.shape == (4, 3)
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    if face in ("f 1/1 2/2 3/3 4/4", "f 1/1/1 2/2/1 3/3/1 4/4/1"):
        assert uv is not None
        np.testing.assert_array_equal(uv[1], [[0, 0], [1, 1], [0, 1]])
    else:
        assert uv is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v 0 0 0",
        "v 0 0 0\nf 1 2 3",
        "v 0 0 x\nf 1 1 1",
        "v 0 0 nan\nf 1 1 1",
        "v 0 0 1e300\nf 1 1 1",
        "v 0 0\nf 1 1 1",
        "f a b c",
    ],
)
def test_a_broken_obj_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.obj").write_text(text)
    with pytest.raises(DataError, match=r"broken\.obj"):
        read_obj(tmp_path / "broken.obj")


def test_a_broken_texture_or_model_list_is_named(tmp_path: Path) -> None:
    files.write_models(tmp_path)
    (tmp_path / "bed-1" / "texture.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"texture\.png"):
        ModelStore(tmp_path).get("bed-1")
    (tmp_path / "model_info.json").write_text("{")
    with pytest.raises(DataError, match=r"model_info\.json is not valid JSON"):
        ModelStore(tmp_path)
    (tmp_path / "model_info.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="not a list of models"):
        ModelStore(tmp_path)


def test_texture_coordinates_run_upwards_and_repeat() -> None:
    texture = np.zeros((2, 2, 3), dtype=np.uint8)
    texture[0, 1] = 255  # upper right
    found = sample(texture, np.array([[0.75, 0.75], [0.25, 0.25], [1.75, -0.25], [0.75, 0.25]]))
    np.testing.assert_array_equal(found[:, 0], [1, 0, 1, 0])


def test_large_textures_are_made_small(tmp_path: Path) -> None:
    files.write_model(tmp_path / "m", files.MODELS["bed-1"][3], (255, 0, 0))
    Image.new("RGB", (2048, 1024), (250, 0, 0)).save(tmp_path / "m" / "texture.png")
    texture = ModelStore(tmp_path).get("m").texture
    assert texture is not None
    assert texture.shape == (256, 512, 3)


# ---------------------------------------------------------------------- words


def test_every_noun_is_known_to_the_language() -> None:
    assert {*NOUNS.values(), *SUPER_NOUNS.values()} == set(FRONT_WORDS.categories) <= set(CATEGORIES)
    assert noun_of("King-size Bed", "Bed") == "bed"
    assert noun_of("Corner/Side Table", "Cabinet/Shelf/Desk") == "table"
    assert noun_of("something new", "Pier/Stool") == "stool"
    assert noun_of("Others", "Others") is None
    assert noun_of("", "", "bed/king-size bed") == "bed"
    assert noun_of("", "", "build element/mirror") is None


def test_named_colours_of_the_rooms_keep_their_names() -> None:
    numbers = colour_numbers(np.array(list(ROOM_COLOURS.values())))
    assert [COLOURS[n] for n in numbers] == list(ROOM_COLOURS)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((139, 90, 43), "brown"), ((94, 60, 30), "brown"), ((181, 135, 90), "brown"), ((222, 200, 170), "beige"),
        ((245, 222, 179), "beige"), ((128, 128, 128), "gray"), ((70, 72, 75), "gray"), ((240, 240, 238), "white"),
        ((255, 182, 193), "pink"), ((25, 25, 25), "black"), ((30, 60, 140), "blue"), ((255, 140, 0), "orange"),
        ((120, 20, 150), "purple"), ((60, 120, 60), "green"), ((255, 230, 50), "yellow"),
    ],
)  # fmt: skip
def test_colour_names(rgb: tuple[int, int, int], name: str) -> None:
    assert COLOURS[int(colour_numbers(np.array([rgb]) / 255.0)[0])] == name


def test_the_main_colour_is_that_of_most_of_the_surface() -> None:
    rgb = np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.8], [0.1, 0.6, 0.2], [0.9, 0.9, 0.1]])
    assert main_colour(rgb, np.array([5.0, 1, 1, 1])) == "red"
    assert main_colour(rgb, np.array([1.0, 1, 1, 1])) == "multicolored"


def test_gaps_cover_exactly_what_is_not_floor() -> None:
    inside = np.random.default_rng(3).random((12, 9)) < 0.6
    taken = np.zeros_like(inside)
    plan = FloorPlan(np.array([1.0, -2.0]), inside, (1.0, -2.0, 1.9, -0.8), taken)
    cells = np.stack(np.meshgrid(np.arange(9) + 0.5, np.arange(12) + 0.5), -1).reshape(-1, 2) * 0.1 + [1.0, -2.0]
    times = np.zeros(len(cells), dtype=int)
    for x0, y0, x1, y1 in plan.gaps():
        times += (cells[:, 0] > x0) & (cells[:, 0] < x1) & (cells[:, 1] > y0) & (cells[:, 1] < y1)
    np.testing.assert_array_equal(times, ~inside.ravel())
    np.testing.assert_array_equal(plan.contains(cells), inside.ravel())
    assert not plan.contains(np.array([[0.9, -1.9], [5.0, 5.0]])).any()
