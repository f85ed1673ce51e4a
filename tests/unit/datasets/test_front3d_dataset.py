"""The dataset `front3d` as files: rooms where the house says they are, left out with a count, resumable, rightly described."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import front3d_files as source
import numpy as np
import pytest

from pipeline.core import registry
from pipeline.datasets.front3d import work
from pipeline.scenes.geometry import unproject
from pipeline.scenes.index import SceneIndex


def marker(index: SceneIndex, scene_id: str) -> dict[str, Any]:
    return json.loads((index.root / scene_id / "scene.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four houses of two rooms, prepared."""
    folder = tmp_path_factory.mktemp("front3d")
    source.write_front3d(folder)
    source.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def index(written: Path) -> SceneIndex:
    return SceneIndex(written / "out" / "manifest.json")


def facts(index: SceneIndex) -> dict[str, dict[str, Any]]:
    return {r.scene_id: marker(index, r.scene_id)["facts"] for r in index}


# ------------------------------------------------------------------- geometry


def test_objects_are_where_the_house_places_them(index: SceneIndex) -> None:
    """World = house with y up turned to z up: x stays, y is minus z. House b is turned by 25 degrees and comes out straight."""
    assert len(index.records) == 2 * len(source.HOUSES)
    for record in index:
        kind = "MasterBedroom" if "MasterBedroom" in record.scene_id else "LivingRoom"
        placed = [thing for thing in source.ROOMS[kind] if thing[0] != "rug-1"]
        assert len(record.objects) == len(placed)
        for found, (jid, x, y, z, yaw) in zip(record.objects, placed, strict=True):
            boxes = np.array(source.MODELS[jid][3])
            low, high = boxes[:, :3].min(0), boxes[:, 3:].max(0)
            c, s = abs(np.cos(np.radians(yaw))), abs(np.sin(np.radians(yaw)))
            size = high - low
            expected = [c * size[0] + s * size[2], s * size[0] + c * size[2], size[1]]
            np.testing.assert_allclose(found.box[3:], expected, atol=2e-4)
            centre = (low + high) / 2
            turned = np.array(
                [[np.cos(np.radians(yaw)), np.sin(np.radians(yaw))], [-np.sin(np.radians(yaw)), np.cos(np.radians(yaw))]]
            )
            cx, cz = turned @ centre[[0, 2]]
            np.testing.assert_allclose(found.box[:3], [x + cx, -(z + cz), y + centre[1]], atol=2e-4)


def test_nothing_is_mirrored(index: SceneIndex) -> None:
    """The way back from the world to the house is a turn and a shift."""
    for content in facts(index).values():
        world_from_house = np.array(content["world_from_house"])
        assert np.linalg.det(world_from_house[:3, :3]) == pytest.approx(1.0, abs=1e-3)
        np.testing.assert_allclose(world_from_house[2, :3], [0, 1, 0], atol=1e-4)


def test_fronts_supports_and_landmarks(index: SceneIndex) -> None:
    for scene_id, content in facts(index).items():
        things = {t["object_id"]: t for t in content["things"]}
        by_noun = {t["category"]: t for t in content["things"]}
        marks = {m["kind"]: m for m in content["landmarks"]}
        assert set(marks) == {"door", "window"}
        np.testing.assert_allclose(marks["door"]["normal"], [-1, 0], atol=1e-4)
        np.testing.assert_allclose(marks["window"]["normal"], [0, 1], atol=1e-4)
        assert marks["door"]["width"] == pytest.approx(0.8, abs=1e-3)
        assert content["rectangular"]
        if "MasterBedroom" in scene_id:
            np.testing.assert_allclose(by_noun["bed"]["front"], [0, -1], atol=1e-4)
            np.testing.assert_allclose(by_noun["desk"]["front"], [-1, 0], atol=1e-4)
            np.testing.assert_allclose(by_noun["chair"]["front"], [1, 0], atol=1e-4)
            (standing,) = [t for t in content["things"] if t["on"] is not None]
            assert (standing["category"], things[standing["on"]]["category"]) == ("lamp", "nightstand")
        hanging = [t for t in content["things"] if t["hangs"]]
        assert [(t["category"], t["hangs"]) for t in hanging] == [("lamp", "ceiling")]


def test_a_door_between_two_rooms_is_a_door_of_both(tmp_path: Path) -> None:
    """It is a child of the bedroom only; the living room's west wall is 10 cm behind it, its own door is taken away."""
    path = source.one_house(tmp_path, source.bedroom(), source.room("LivingRoom", "LivingRoom-2", middle=(4.5, 0.0)))
    content = json.loads(path.read_text())
    own = {m["uid"] for m in content["mesh"] if m["type"] == "Door" and "LivingRoom" in m["uid"]}
    living = content["scene"]["room"][1]
    living["children"] = [c for c in living["children"] if c["ref"] not in own]
    path.write_text(json.dumps(content))
    found = facts(source.prepare(tmp_path))
    doors = {s.split("_")[1]: [m for m in f["landmarks"] if m["kind"] == "door"] for s, f in found.items()}
    assert [d["normal"] for d in doors["MasterBedroom-1"]] == [[-1.0, 0.0]]
    assert [d["normal"] for d in doors["LivingRoom-2"]] == [[1.0, 0.0]]
    assert doors["LivingRoom-2"][0]["centre"][0] == pytest.approx(2.18 - 4.5, abs=1e-3)


def test_cameras_stand_on_free_floor(index: SceneIndex) -> None:
    for record in index:
        content = marker(index, record.scene_id)["facts"]
        x0, y0, x1, y1 = content["bounds"]
        for x, y, z in record.world_from_camera[:, :3, 3]:
            assert x0 < x < x1
            assert y0 < y < y1
            assert 1.1 < z < 1.9
            for t in content["things"]:
                assert t["hangs"] or not (t["low"][0] < x < t["high"][0] and t["low"][1] < y < t["high"][1])


def test_depth_hits_boxes_walls_and_floor(tmp_path: Path) -> None:
    """Exact depth: every measured point is in the room, and on the floor, a wall, the ceiling, a door or in a box."""
    source.one_house(tmp_path, source.bedroom())
    found = source.prepare(tmp_path, depth="exact", views=4)
    (record,) = found
    scene = found.load(record.scene_id)
    points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    cloud = points[valid]
    assert valid.mean() > 0.9, "only the window has no depth"
    low, high = np.array([-2.2, -2.0, 0.0]), np.array([2.2, 2.0, source.HEIGHT])
    assert ((cloud > low - 0.01) & (cloud < high + 0.01)).all()
    explained = ((cloud - low < 0.06) | (high - cloud < 0.06)).any(1)
    for item in record.objects:
        explained |= (np.abs(cloud - item.box[:3]) < np.array(item.box[3:]) / 2 + 0.01).all(1)
    assert explained.mean() > 0.999


def test_textures_colour_the_pictures(index: SceneIndex) -> None:
    """Pixels inside the box of the blue bed are blue, those of the red chair red."""
    for category, channel in (("bed", 2), ("chair", 0)):
        seen = []
        for record in index:
            scene = index.load(record.scene_id)
            points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
            for item in record.objects:
                if item.category == category and item.attributes["color"] in ("blue", "red"):
                    inside = (
                        valid & (np.abs(points - item.box[:3]) < np.array(item.box[3:]) / 2).all(-1) & (points[..., 2] > 0.1)
                    )
                    seen.append(scene.rgb[inside])
        assert len(np.concatenate(seen)) > 50
        assert np.concatenate(seen).mean(0).argmax() == channel


def test_an_l_shaped_room_keeps_cameras_and_words_inside(tmp_path: Path) -> None:
    corners = [(-3, -2.5), (3, -2.5), (3, 0.2), (0.2, 0.2), (0.2, 2.5), (-3, 2.5)]
    things = [
        ("bed-1", -1.5, 0, -1.4, 0.0),
        ("stand-1", 0.0, 0, -2.2, 0.0),
        ("robe-1", 2.2, 0, -2.1, 0.0),
        ("chair-1", -2.5, 0, 2.0, 90.0),
    ]
    source.one_house(tmp_path, source.bedroom(corners=corners, things=things))
    found = source.prepare(tmp_path, views=6, val_share=0.0, test_share=0.0)
    (record,) = found
    content = marker(found, record.scene_id)["facts"]
    assert not content["rectangular"]
    assert sum((c - a) * (d - b) for a, b, c, d in content["blocked"]) == pytest.approx(2.8 * 2.3, rel=0.08)
    eyes = record.world_from_camera[:, :2, 3]
    assert not ((eyes[:, 0] > 0.25) & (eyes[:, 1] < -0.25)).any()
    text = json.dumps([p.read_text() for p in (found.folder / "annotations").iterdir()])
    assert "corner" not in text
    assert "middle of the room" not in text


# ------------------------------------------------------------------- language


def test_descriptions_are_true_of_their_objects(index: SceneIndex) -> None:
    everything = facts(index)
    entries = [e for p in sorted((index.folder / "annotations").glob("ScanRefer*")) for e in json.loads(p.read_text())]
    assert len(entries) > 80
    for entry in entries:
        content = everything[entry["scene_id"]]
        thing = content["things"][int(entry["object_id"])]
        text = entry["description"]
        assert thing["category"] == entry["object_name"]
        assert thing["category"] in text
        assert thing["colour"] in text
        same = [t for t in content["things"] if (t["category"], t["colour"]) == (thing["category"], thing["colour"])]
        start = r"(this is |it is |you can see |look for |there is )?(an?|the) "
        if re.fullmatch(rf"{start}{thing['colour']} {thing['category']}( in the room)?\.", text):
            assert len(same) == 1
        if thing["hangs"] == "ceiling":
            assert not re.search(r"next to|beside|close to|in the corner|by the|near the", text)
        if "on a nightstand" in text or "on the nightstand" in text:
            assert thing["on"] is not None


def test_questions_count_and_name_rightly(index: SceneIndex) -> None:
    everything = facts(index)
    words = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}
    checked = Counter()
    for path in sorted((index.folder / "annotations").glob("ScanQA*")):
        for entry in json.loads(path.read_text()):
            things = everything[entry["scene_id"]]["things"]
            number = re.fullmatch(r"How many (\w+) (are in the room|are there)\?", entry["question"])
            if number:
                noun = {"bookshelves": "bookshelf"}.get(number[1], number[1].removesuffix("s"))
                assert words[entry["answers"][0]] == sum(t["category"] == noun for t in things), entry
                checked["count"] += 1
            if re.fullmatch(r"Is there an? \w+ in the room\?", entry["question"]):
                noun = entry["question"].split()[3]
                assert (entry["answers"] == ["yes"]) == any(t["category"] == noun for t in things)
                checked["exists"] += 1
            assert "plant" not in entry["question"], "plants may be there without a name"
    assert min(checked["count"], checked["exists"]) > 0


def test_all_five_formats_are_there_for_every_split(index: SceneIndex) -> None:
    splits = {r.split for r in index}
    assert splits == {"train", "val", "test"}
    for benchmark in ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"):
        member = registry.create("benchmarks", {"name": benchmark, "kind": benchmark, "options": {}})
        for split in splits:
            assert len(member.samples(index, split)) >= 4
    assert all((r.proposals is None) == (r.split == "train") for r in index)


def test_nothing_is_asked_that_a_thing_without_a_noun_could_answer(tmp_path: Path) -> None:
    """The bedroom has a rug by bed and stool: "what is next to the bed" or "what is the red object" could mean the rug."""
    for name, keep in (("with", True), ("without", False)):
        folder = tmp_path / name
        source.one_house(folder, source.bedroom(things=[t for t in source.ROOMS["MasterBedroom"] if keep or t[0] != "rug-1"]))
        found = source.prepare(folder, val_share=0.0, test_share=0.0, scanqa_per_room=20, sqa3d_per_room=20, view_questions=12)
        text = " ".join(path.read_text() for path in (found.folder / "annotations").iterdir())
        (content,) = facts(found).values()
        assert len(content["unnamed"]) == int(keep)
        asked = re.findall(r"What (?:is|object is) (?:next to|close to|beside) the (?:bed|stool)\?", text)
        asked += re.findall(r"How many \w+ objects|What is the \w+ object\?|Which object is", text)
        assert bool(asked) != keep


# ------------------------------------------------------------ splits, resuming


def test_splits_follow_the_house_and_nothing_else(tmp_path: Path, index: SceneIndex) -> None:
    member = source.dataset(tmp_path, val_share=0.2, test_share=0.3)
    counts = Counter(member.split_of(f"house-{i}") for i in range(3000))
    assert counts["val"] / 3000 == pytest.approx(0.2, abs=0.03)
    assert counts["test"] / 3000 == pytest.approx(0.3, abs=0.03)
    more = source.dataset(tmp_path, val_share=0.3, test_share=0.3)
    assert all(more.split_of(f"house-{i}") == "test" for i in range(300) if member.split_of(f"house-{i}") == "test")
    by_house: dict[str, set[str]] = {}
    for record in index:
        by_house.setdefault(record.scene_id.split("_")[0], set()).add(record.split)
    assert all(len(splits) == 1 for splits in by_house.values())


def test_resume_makes_only_what_is_missing_damaged_or_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.write_front3d(tmp_path)
    first = source.prepare(tmp_path, houses_max=3)
    before = {r.scene_id: r.checksum for r in first}
    filmed: list[str] = []
    original = work._film_room
    monkeypatch.setattr(work, "_film_room", lambda job, place, room: filmed.append(room.scene_id) or original(job, place, room))
    source.dataset(tmp_path, houses_max=3).prepare(tmp_path / "out", threads=1)
    assert filmed == []
    lost, damaged = sorted(before)[0], sorted(before)[3]
    next((first.root / lost).glob("*.png")).unlink()
    next((first.root / damaged).glob("*.jpg")).write_bytes(b"broken")
    again = source.prepare(tmp_path, houses_max=3)
    assert filmed == [lost, damaged]
    assert {r.scene_id: r.checksum for r in again} == before
    path = next((tmp_path / "3D-FRONT").glob(f"{lost.split('_')[0]}.json"))
    content = json.loads(path.read_text())
    content["scene"]["room"].pop()
    path.write_text(json.dumps(content))
    assert set(before) - {r.scene_id for r in source.prepare(tmp_path, houses_max=3)} == {
        r for r in before if r.startswith(path.stem) and "LivingRoom" in r
    }
    assert filmed == [lost, damaged], "the other room of the house is whole"


def test_what_has_changed_is_made_again(tmp_path: Path) -> None:
    """A house file in which a chair was moved, a model that was missing and came, a texture that was replaced."""
    path = source.one_house(tmp_path, source.bedroom(), source.room("LivingRoom", "LivingRoom-2", middle=(6.0, 1.0)))
    robe = tmp_path / "3D-FUTURE-model" / "robe-1" / "raw_model.obj"
    robe.rename(robe.with_suffix(".away"))

    def made() -> dict[str, tuple[str, dict[str, Any]]]:
        found = source.prepare(tmp_path)
        return {r.scene_id.split("_")[1]: (r.checksum, {o.category: o for o in r.objects}) for r in found}

    first = made()
    assert "wardrobe" not in first["MasterBedroom-1"][1]
    robe.with_suffix(".away").rename(robe)
    second = made()
    assert "wardrobe" in second["MasterBedroom-1"][1]
    assert second["LivingRoom-2"] == first["LivingRoom-2"]
    content = json.loads(path.read_text())
    chair = next(c for c in content["scene"]["room"][0]["children"] if c["ref"] == "MasterBedroom-1-6/model")
    chair["pos"][0] -= 0.25
    path.write_text(json.dumps(content))
    third = made()
    moved = third["MasterBedroom-1"][1]["chair"].box[0] - second["MasterBedroom-1"][1]["chair"].box[0]
    assert moved == pytest.approx(-0.25, abs=1e-3)
    assert third["LivingRoom-2"] == second["LivingRoom-2"]
    source.write_model(tmp_path / "3D-FUTURE-model" / "sofa-1", source.MODELS["sofa-1"][3], (200, 30, 30))
    fourth = made()
    assert (third["LivingRoom-2"][1]["sofa"].attributes, fourth["LivingRoom-2"][1]["sofa"].attributes) == (
        {"color": "gray"},
        {"color": "red"},
    )
    assert fourth["MasterBedroom-1"] == third["MasterBedroom-1"]
    assert made() == fourth


def test_workers_write_the_same(tmp_path: Path, index: SceneIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    source.write_front3d(tmp_path)
    monkeypatch.setattr(work, "SPAWN_FROM_HOUSES", 2)
    found = source.prepare(tmp_path, threads=2)
    assert {r.scene_id: r.checksum for r in found} == {r.scene_id: r.checksum for r in index}
    for path in (found.folder / "annotations").iterdir():
        assert path.read_bytes() == (index.folder / "annotations" / path.name).read_bytes()


def test_a_smaller_set_removes_what_it_does_not_name(tmp_path: Path) -> None:
    source.write_front3d(tmp_path)
    many = {p.name for p in source.prepare(tmp_path).root.iterdir()}
    few = source.prepare(tmp_path, houses_max=1)
    assert {p.name for p in few.root.iterdir()} == {r.scene_id for r in few} | {work.MARKERS, "report.json"} < many
    report = json.loads((few.root / "report.json").read_text())
    assert (report["houses"], report["rooms"]) == (1, 2)
    assert report["counts"] == {"furniture without a noun (shown, never asked about)": 1}
    assert len(list((few.root / work.MARKERS).iterdir())) == 1


def test_sources_and_licence_are_stated(tmp_path: Path) -> None:
    member = source.dataset(tmp_path)
    assert [s.path.name for s in member.source_files()] == ["3D-FRONT", "3D-FUTURE-model", "model_info.json"]
    assert all(s.source.startswith("https://") for s in member.source_files())
    assert "non-commercial" in member.licence
    plan = source.dataset(tmp_path, houses_max=None, val_share=0.1, test_share=0.0).planned()
    assert (plan.scenes, plan.about) == ({"train": 17_071, "val": 1_897}, True), "18,968 rooms of the release"
    assert source.dataset(tmp_path, houses_max=600, val_share=0.0, test_share=0.0).planned().scenes == {"train": 1_670}
    source.write_front3d(tmp_path)
    houses = len(list((tmp_path / "3D-FRONT").glob("*.json")))
    assert sum(member.planned().scenes.values()) <= 3 * houses + 3
    assert all(s.path.exists() for s in member.source_files())
    deep = source.dataset(tmp_path, houses=str(tmp_path), models=str(tmp_path), textures=str(tmp_path))
    missing = [s.path.relative_to(tmp_path).as_posix() for s in deep.source_files() if not s.path.exists()]
    assert missing == ["*.json", "*/raw_model.obj", "model_info.json", "*/texture.png"], "unpacked one level too deep"
