"""The building around a room of 3D-FRONT: what is built in is in nobody's way and unnamed; walls have colours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import front3d_files as source
import numpy as np
import pytest
from front3d_files import bedroom, one_house, prepare
from PIL import Image

from pipeline.core.errors import DataError
from pipeline.datasets.front3d.faults import Tally
from pipeline.datasets.front3d.finish import REFLECTS, Finishes, Material, read_materials
from pipeline.scenes.index import SceneIndex

TRAIN = {"val_share": 0.0, "test_share": 0.0}
BOX_FACES = (0, 1, 3, 0, 3, 2, 4, 6, 7, 4, 7, 5, 0, 4, 5, 0, 5, 1, 2, 3, 7, 2, 7, 6, 0, 2, 6, 0, 6, 4, 1, 5, 7, 1, 7, 3)
CORNER = ((1.2, -2.0), (2.2, -1.0))
"""Floor x, z of what is built in here, in the house."""


def built_in(kind: str, x: Sequence[float], y: Sequence[float], z: Sequence[float]) -> dict[str, Any]:
    corners = [float(v) for a in x for b in y for c in z for v in (a, b, c)]
    return {"uid": f"own-{kind}", "jid": "", "type": kind, "xyz": corners, "faces": list(BOX_FACES), "material": ""}


def house_with(folder: Path, *parts: dict[str, Any], material: Sequence[dict[str, Any]] = (), **changes: Any) -> SceneIndex:
    """A bedroom with further building parts, and materials by mesh type in ``changes['of']``."""
    of = changes.pop("of", {})
    things = [t for t in source.ROOMS["MasterBedroom"] if t[0] not in ("rug-1", "desk-1") and not (t[1] > 1 and t[3] < -1.5)]
    path = one_house(folder, bedroom(things=things))
    content = json.loads(path.read_text())
    content["mesh"] += parts
    content["material"] = list(material)
    for mesh in content["mesh"]:
        mesh["material"] = of.get(mesh["type"], "")
    for part in parts:
        child = {"ref": part["uid"], "pos": [0, 0, 0], "rot": [0, 0, 0, 1], "scale": [1, 1, 1], "instanceid": "mesh/x"}
        content["scene"]["room"][0]["children"].append(child)
    path.write_text(json.dumps(content))
    return prepare(folder, **TRAIN, **changes)


def facts(index: SceneIndex) -> dict[str, Any]:
    (record,) = index
    content: dict[str, Any] = json.loads((index.root / record.scene_id / "scene.json").read_text())["facts"]
    return content


def words(index: SceneIndex) -> str:
    return " ".join(path.read_text() for path in sorted((index.folder / "annotations").iterdir()))


def cupboard(kind: str, top: float = 2.4) -> dict[str, Any]:
    (x0, z0), (x1, z1) = CORNER
    return built_in(kind, (x0, x1), (0.0, top), (z0, z1))


@pytest.mark.parametrize(("kind", "cupboards"), [("CustomizedFixedFurniture", True), ("Cabinet", True), ("Column", False)])
def test_what_is_built_in_is_no_floor_and_not_asked_about(tmp_path: Path, kind: str, cupboards: bool) -> None:
    many = {"views": 8, "scanqa_per_room": 20, "sqa3d_per_room": 20, "view_questions": 12, "multi3drefer_per_room": 20}
    found = house_with(tmp_path, cupboard(kind), **many)
    content, text = facts(found), words(found)
    (record,) = found
    x, y = record.world_from_camera[:, 0, 3], record.world_from_camera[:, 1, 3]
    assert not ((x > 1.2) & (-y < -1.0)).any(), "no camera in it"
    (rect,) = [r for r in content["blocked"] if r in content["unnamed"] and r[0] > 1.0]
    np.testing.assert_allclose(rect, [1.2, 1.0, 2.2, 2.0], atol=0.051)
    assert content["floor_m2"] == pytest.approx(4.4 * 4.0, rel=0.01), "floor under it is floor"
    assert not content["rectangular"]
    assert "corner" not in text
    nouns = {t["category"] for t in content["things"]}
    assert {"bed", "nightstand", "stool"} <= nouns
    assert ("wardrobe" in nouns) != cupboards
    for noun in ("wardrobe", "cabinet", "bookshel"):
        assert (noun in text) != cupboards, "a cupboard that is built in may be called that"
    counts = json.loads((found.root / "report.json").read_text())["counts"]
    assert counts.get("furniture like what is built into its room (shown, never asked about)", 0) == int(cupboards)


@pytest.mark.parametrize(
    "part",
    [
        built_in("Baseboard", (-2.2, 2.2), (0.0, 0.1), (-2.0, 2.0)),
        built_in("Cornice", (-2.2, 2.2), (2.5, 2.7), (-2.0, 2.0)),
        built_in("customized_wainscot", (-2.2, 2.2), (0.0, 1.0), (-2.0, -1.97)),
    ],
    ids=["skirting board", "cornice", "panel"],
)
def test_skirting_boards_cornices_and_panels_are_in_nobodys_way(tmp_path: Path, part: dict[str, Any]) -> None:
    content = facts(house_with(tmp_path, part))
    assert content["blocked"] == content["unnamed"] == []
    assert content["rectangular"]
    assert content["unsaid"] == []


# --------------------------------------------------------------------- colours


def seen_floor(index: SceneIndex) -> np.ndarray:
    """Mean colour of floor pixels, each picture's own brightness taken out."""
    from pipeline.scenes.geometry import unproject

    (record,) = index
    scene = index.load(record.scene_id)
    points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    colour = scene.rgb[valid & (np.abs(points[..., 2]) < 0.02)].mean(0)
    return np.asarray(colour / colour.sum())


MATERIALS = (
    {"uid": "m-red", "jid": "j-1", "texture": "", "color": [200, 40, 40, 255]},
    {"uid": "m-tiled", "jid": "tiles-1", "texture": "https://somewhere/tiles-1/texture.png", "color": [255, 255, 255, 255]},
)


def test_a_floor_has_the_colour_of_its_material(tmp_path: Path) -> None:
    share = seen_floor(house_with(tmp_path, material=MATERIALS, of={"Floor": "m-red"}, depth="exact", views=4))
    np.testing.assert_allclose(share, np.array([200, 40, 40]) / 280, atol=0.06)


def test_a_floor_has_the_mean_colour_of_its_texture(tmp_path: Path) -> None:
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    picture[:, :20], picture[:, 20:] = (40, 40, 40), (40, 200, 40)
    (tmp_path / "tex" / "tiles-1").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "tex" / "tiles-1" / "texture.png")
    asked = {"material": MATERIALS, "of": {"Floor": "m-tiled"}, "depth": "exact", "views": 4}
    share = seen_floor(house_with(tmp_path / "a", **asked, textures=str(tmp_path / "tex")))
    np.testing.assert_allclose(share, np.array([40, 120, 40]) / 200, atol=0.06)
    plain = seen_floor(house_with(tmp_path / "b", **asked))
    assert np.abs(plain - share).max() > 0.05, "without the folder the floor has a colour of the palette, not white"
    assert plain.max() < 0.5


def test_missing_textures_are_counted_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tex").mkdir()
    asked = {"material": MATERIALS, "of": {"WallInner": "m-tiled"}, "textures": str(tmp_path / "tex")}
    house_with(tmp_path / "a", **asked)
    assert "4 x texture of the building that cannot be read" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"tiles-1/texture\.png"):
        house_with(tmp_path / "b", **asked, on_fault="refuse")
    with pytest.raises(DataError, match="does not exist") as caught:
        prepare(tmp_path / "a", textures=str(tmp_path / "nowhere"))
    assert "datasets.front.textures" in str(caught.value)


def test_materials_that_are_none_give_plain_colours() -> None:
    bad = [3, {"uid": 4}, {"uid": "a", "color": [1, 2]}, {"uid": "b", "color": [0, 0, "x"]}, {"uid": "c", "color": [0, 0, 999]},
           {"uid": "d", "color": [0, 0, float("nan")]}, {"uid": "e"}]  # fmt: skip
    found = read_materials({"material": bad})
    assert set(found) == set("abcde")
    assert {m.colour for m in found.values()} == {None}
    assert read_materials({"material": "no list"}) == read_materials({}) == {}
    escaping = read_materials({"material": [{"uid": "f", "jid": "../../etc", "texture": "x", "color": [255, 0, 0]}]})["f"]
    assert escaping == Material("f", (1.0, 0.0, 0.0), "")
    tally = Tally()
    assert Finishes(None).colour(escaping, "here", tally) == (REFLECTS, 0.0, 0.0)
    assert Finishes(None).colour(None, "here", tally) is None
    assert Finishes(None).colour(Material("g", (1.0, 1.0, 1.0), "t"), "here", tally) is None
    assert not tally.counts
