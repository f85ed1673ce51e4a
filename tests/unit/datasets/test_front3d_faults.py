"""The dataset `front3d` on incomplete and faulty houses: what is left out with a count, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import front3d_files as source
import pytest

from pipeline.core.errors import ConfigError, DataError


def test_missing_models_are_counted_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source.one_house(tmp_path, source.bedroom())
    (tmp_path / "3D-FUTURE-model" / "bed-1" / "raw_model.obj").unlink()
    source.write_model(tmp_path / "3D-FUTURE-model" / "desk-1", [(0, 0, 0, 1, 0, 1)], (9, 9, 9))
    (tmp_path / "3D-FUTURE-model" / "stool-1" / "raw_model.obj").write_text("f 1 2 3")
    found = source.prepare(tmp_path)
    (record,) = found
    assert len(record.objects) == len(source.ROOMS["MasterBedroom"]) - 4
    said = capsys.readouterr().err
    assert "1 x model that is not there" in said
    assert "1 x box of size zero" in said
    assert "1 x damaged model" in said
    assert "furniture without a noun" in said
    with pytest.raises(DataError, match="model that is not there") as caught:
        source.prepare(tmp_path, on_fault="refuse")
    assert "house-x.json: room MasterBedroom-1, child 8 (MasterBedroom-1-0/model)" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"room_types": ["Kitchen"]}, "room of another type"),
        ({"objects_min": 20}, "too few or too many objects"),
        ({"objects_max": 5}, "too few or too many objects"),
        ({"floor_min_m2": 30}, "too small or too large"),
        ({"floor_max_m2": 10}, "too small or too large"),
        ({"side_min_m": 4.2}, "too small or too large"),
    ],
)
def test_limits_leave_rooms_out_and_say_so(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    source.one_house(tmp_path, source.bedroom())
    with pytest.raises(DataError, match="no room is left to film") as caught:
        source.prepare(tmp_path, **options)
    assert reason in str(caught.value)


def test_absurd_sizes_are_left_out_without_filling_the_memory(tmp_path: Path) -> None:
    path = source.one_house(tmp_path, source.bedroom(), source.room("LivingRoom", "LivingRoom-2", middle=(9.0, 0.0)))
    content = json.loads(path.read_text())
    content["mesh"][0]["xyz"][0] = -1e9  # a corner of the bedroom's floor
    living = next(c for c in content["scene"]["room"][1]["children"] if c["ref"].endswith("-3/model"))
    living["scale"] = [1e7, 1.0, 1.0]
    path.write_text(json.dumps(content))
    found = source.prepare(tmp_path)
    assert [r.scene_id for r in found] == ["house-x_LivingRoom-2"]
    counts = json.loads((found.root / "report.json").read_text())["counts"]
    assert counts["room too small or too large"] == counts["box much larger than its room"] == 1


def test_room_types_choose_rooms(tmp_path: Path) -> None:
    source.write_front3d(tmp_path)
    found = source.prepare(tmp_path, room_types=["livingroom"], houses_max=2)
    assert len(list(found)) == 2
    assert all("LivingRoom" in r.scene_id for r in found)


@pytest.mark.parametrize("empty", ["no furniture", "no floor", "flat floor", "upright floor", "no rooms"])
def test_empty_rooms_are_left_out(tmp_path: Path, empty: str) -> None:
    path = source.one_house(tmp_path, source.bedroom())
    content = json.loads(path.read_text())
    if empty == "no rooms":
        content["scene"]["room"] = []
    elif empty == "flat floor":
        content["mesh"][0]["faces"] = [0, 1, 1, 2, 2, 2]
    elif empty == "upright floor":
        content["mesh"][0]["xyz"] = [-2.2, 0.0, 0.0, 2.2, 0.0, 0.0, 2.2, 3.0, 0.0, -2.2, 3.0, 0.0]
    else:
        word = "/model" if empty == "no furniture" else "mesh0"
        children = content["scene"]["room"][0]["children"]
        content["scene"]["room"][0]["children"] = [c for c in children if word not in c["ref"]]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no room is left to film") as caught:
        source.prepare(tmp_path)
    expected = {
        "no furniture": "room without furniture",
        "no floor": "room without a floor",
        "flat floor": "room without a floor",
        "upright floor": "room without a floor",
        "no rooms": "house without rooms",
    }
    assert expected[empty] in str(caught.value)


def test_a_house_that_is_no_json_stops_with_its_name(tmp_path: Path) -> None:
    source.one_house(tmp_path, source.bedroom())
    (tmp_path / "3D-FRONT" / "cut.json").write_text('{"furniture": [')
    with pytest.raises(DataError, match=r"cut\.json is not valid JSON"):
        source.prepare(tmp_path)


def test_missing_folders_and_bad_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        source.prepare(tmp_path)
    assert "datasets.front.houses" in str(caught.value)
    (tmp_path / "3D-FRONT").mkdir()
    (tmp_path / "3D-FUTURE-model").mkdir()
    with pytest.raises(DataError, match="there is no house file"):
        source.prepare(tmp_path)
    (tmp_path / "3D-FRONT" / "a b.json").write_text("{}")
    with pytest.raises(DataError, match="not a valid id"):
        source.prepare(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_share": 0.7, "test_share": 0.6}, "more than all houses"),
        ({"objects_min": 9, "objects_max": 8}, "above objects_max"),
        ({"floor_min_m2": 90}, "above floor_max_m2"),
        ({"room_types": []}, "room_types"),
        ({"on_fault": "ignore"}, "on_fault"),
        ({"house": "x"}, "did you mean 'houses'"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source.dataset(tmp_path, **options)
