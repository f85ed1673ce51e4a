"""Mistakes in the configuration end before any job starts, with one message and exit code 2."""

from __future__ import annotations

import pytest
from workflow_project import SMOKE, Project

FAULTS = {
    "study: {teachrs: [none]}": "unknown key 'study.teachrs', did you mean 'teachers'?",
    "study: {teachers: [none, vgtt_rooms]}": "unknown teacher 'vgtt_rooms', did you mean 'vggt_rooms'?",
    "teachers: {geometrie: {}}": "unknown teacher 'geometrie', did you mean 'geometry'?",
    "teachers: {geometry: {band: 3}}": "unknown key 'band', did you mean 'bands'?",
    "recipes: {3drs: {weigth: 1.0}}": "unknown key 'weigth', did you mean 'weight'?",
    "study: {seeds: [0, 0]}": "named twice: 0",
    "teachers: {vggt_rooms: {pretrain: {dataset: rooms_pretrian}}}": "unknown dataset 'rooms_pretrian'",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_in_the_study(fresh: Project, fault: str) -> None:
    (fresh.folder / "mistake.yaml").write_text(fault + "\n", encoding="utf-8")
    done = fresh.run("snakemake", "--cores", "1", "--configfile", *SMOKE, "mistake.yaml", check=False)
    assert done.returncode == 2
    assert FAULTS[fault] in done.stdout
    assert "Traceback" not in done.stdout
    assert "where:" in done.stdout
    assert not (fresh.folder / "results").exists()


def test_the_verb_check_says_the_same(fresh: Project) -> None:
    (fresh.folder / "mistake.yaml").write_text("study: {teachrs: [none]}\n", encoding="utf-8")
    done = fresh.run("python", "-m", "pipeline", "check", "config.yaml", "mistake.yaml", check=False)
    assert done.returncode == 2
    assert FAULTS["study: {teachrs: [none]}"] in done.stdout
