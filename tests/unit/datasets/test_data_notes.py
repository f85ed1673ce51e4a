"""What preparing left out or could not know: notes in the manifest, on the screen, and none when all is well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import front3d_files
import posed_rgbd_files
import pytest
import scannet_files as made
from box_rooms import make_scene

from pipeline.__main__ import main
from pipeline.core.notes import Note
from pipeline.scenes.index import SceneIndex

TRAIN, OTHER, VAL, TEST = made.SCANS


def lines(kind: str, options: dict[str, Any], out: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The warnings that the command prints; the manifest has the same."""
    spec = json.dumps({"dataset": {"name": "data", "kind": kind, "options": options}})
    assert main(["prepare", "--spec", spec, "--out", str(out / "manifest.json")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert said == [f"warning: data: {note.line()}" for note in SceneIndex(out / "manifest.json").notes]
    return [line.removeprefix("warning: data: ") for line in said]


def test_scannet(release: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lost poses, names without a class, scans that are not turned, broken scans; the split test has no alignment at all."""
    root, options = release
    text = root / f"scans/{OTHER}/{OTHER}.txt"
    text.write_text("\n".join(line for line in text.read_text().splitlines() if "axisAlignment" not in line))
    table = root / "scannetv2-labels.combined.tsv"
    table.write_text("".join(row for row in table.read_text().splitlines(keepends=True) if "\tfloor\t" not in row))
    (root / f"scans/{VAL}/{VAL}.aggregation.json").write_text("{")
    (root / f"mask/{VAL}.mask.npz").touch()
    found = lines("scannet", options | {"skip_broken": True}, tmp_path / "out", capsys)
    frames = 3 * (made.VIEWS + 1)
    assert found[0].startswith("1 of 4 scans left out, their files are missing or damaged; the first: ")
    assert found[0].endswith(f" ({VAL})")
    assert f"3 of {frames} frames without a valid pose: left out ({TRAIN}, {OTHER}, {TEST})" in found
    unturned = "scans of train and val without axisAlignment: boxes and poses are not turned to the walls"
    assert f"1 of 2 {unturned} ({OTHER})" in found
    (names,) = [line for line in found if "label table" in line]
    assert "floor" in names
    assert names.endswith(f"({TRAIN}, {OTHER})")


def test_posed_rgbd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, lost in (("desk", [1]), ("office", [])):
        posed_rgbd_files.write_scannet(tmp_path / "scans" / name, make_scene(name), lost=lost)
    (tmp_path / "scans/office/00010.png").unlink()
    found = lines("posed_rgbd", {"root": str(tmp_path / "scans")}, tmp_path / "out", capsys)
    assert "1 of 7 frames without a usable pose: left out (desk)" in found
    assert any(line.endswith("without partner: left out (office)") for line in found)


def test_front3d(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of the files is a note, with the first item by name; what limits and release leave out is none."""
    front3d_files.one_house(tmp_path, front3d_files.bedroom(), front3d_files.room("LivingRoom", "L-9", middle=(9.0, 0.0)))
    (tmp_path / "3D-FUTURE-model/bed-1/raw_model.obj").unlink()
    options = front3d_files.options(tmp_path) | {"room_types": ["MasterBedroom"]}
    (found,) = lines("front3d", options, tmp_path / "out", capsys)
    assert found.startswith("1 x model that is not there: left out; the first: ")
    assert "room MasterBedroom-1" in found


def test_rooms_that_are_well_say_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines("rooms", {"train": 2, "val": 1, "test": 1, "views": 3, "vsibench_per_room": 5}, tmp_path, capsys) == []


def test_a_note_is_one_line_whatever_names_hold() -> None:
    note = Note("unknown_labels", "names: a\nwarning: b\x1b[31m", 1200, out_of=3000, scenes=tuple("abcdef"))
    assert note.line() == "1,200 of 3,000 names: a warning: b [31m (a, b, c, d, e, ...)"
