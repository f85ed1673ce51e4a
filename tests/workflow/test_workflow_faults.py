"""Mistakes in the configuration end before any job starts, with one message and exit code 2."""

from __future__ import annotations

from pathlib import Path

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
    "recipes: {3drs: {weight: .inf}}": "weight: Input should be a finite number",
    "recipes: {3drs: {weight: 0.5, weight: 5.0}}": "the key 'weight' is given twice",
    "study: {seeds: [010]}": "010 without quotes is a number to another base",
}


PLUGIN = """
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import Teacher


class Mine(Teacher):
    dim = 3

    def grid(self, height_px, width_px):
        return TokenGrid(2, 2)

    def encode(self, scene):
        from ._parts import features
        return features(scene)
"""


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


def test_the_base_file_is_read_as_strictly(fresh: Project) -> None:
    """Snakemake's own reader ended with a traceback of 40 lines where config.yaml itself was UTF-16."""
    path = fresh.folder / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-16")
    done = fresh.run("snakemake", "--cores", "1", check=False)
    assert done.returncode == 2
    assert "config.yaml is UTF-16 text" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_failed_job_says_its_fault_once_and_last(fresh: Project) -> None:
    """It stood there four times, twice behind a command with the whole specification as JSON."""
    text = "datasets: {mine: {kind: posed_rgbd, root: no_such_folder}}\nstudy: {datasets: [mine]}\n"
    (fresh.folder / "mine.yaml").write_text(text, encoding="utf-8")
    scenes, log = "results/scenes/mine/manifest.json", "results/logs/prepare/mine.log"
    done = fresh.run("snakemake", scenes, "--cores", "1", "--configfile", "mine.yaml", check=False)
    assert done.returncode == 1
    assert done.stdout.count("no_such_folder is not a folder") == 1
    assert "--spec" not in done.stdout
    assert "CalledProcessError" not in done.stdout
    assert done.stdout.index(f"log: {log}") < done.stdout.index(f"FAILED: {log}")
    (complete,) = (fresh.folder / ".snakemake/log").glob("*.log")
    assert "--spec" in complete.read_text(encoding="utf-8")


def test_a_command_in_a_message_is_told_with_the_files_of_the_study(fresh: Project) -> None:
    """Without them it made five jobs of config.yaml's study, in the folder of the small one."""
    scenes = fresh.folder / "results/scenes/rooms/manifest.json"
    scenes.parent.mkdir(parents=True)
    scenes.write_text("{", encoding="utf-8")
    done = fresh.run("snakemake", "features", "--cores", "1", "--configfile", *SMOKE, check=False)
    assert done.returncode == 1
    command = done.stdout.index("snakemake --cores all ")
    assert done.stdout.index(f"repeat: --configfile {' '.join(SMOKE)}") > command


def test_a_module_of_a_plugin_that_is_not_python(untouched: Project, tmp_path: Path) -> None:
    """It is read before any job starts, though the plug-in imports it in a function: its code decides what runs."""
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers/mine.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "teachers/_parts.py").write_text("x = 1\ndef (:\n", encoding="utf-8")
    study = ("--configfile", *SMOKE, "--config", 'teachers={"mine":{}}', 'study={"teachers":["none","mine"]}')
    done = untouched.run("snakemake", "--dry-run", *study, check=False, PIPELINE_PLUGINS=str(tmp_path))
    assert done.returncode == 2
    assert "ConfigError: _parts.py is not Python" in done.stdout
    assert f"{tmp_path}/teachers/_parts.py, line 2" in done.stdout
    assert "Traceback" not in done.stdout
