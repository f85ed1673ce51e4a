"""The promise to extenders: the files of docs/extending.md work as a plug-in folder, by what the page says alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from workflow_project import ROOT, Project

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\w+/\w+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
(STUDY,) = re.findall(r"^```yaml\n# my_study.yaml.*?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUICK = {
    "datasets": {"rooms_pretrain": {"train": 8, "views": 2}},
    "backbones": {"llava_next_video": {"pretrain": {f"{s}steps": 2 for s in ("", "referring_", "reading_", "word_")}}},
    "recipes": {"counting": {"steps": 2, "scenes_per_step": 2}},
    "evaluation": {"bootstrap_replicates": 100},
}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plug-in folder with the files of the page."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, text in FILES.items():
        (folder / name).parent.mkdir()
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_page_has_one_file_of_each_interface() -> None:
    assert sorted(name.split("/")[0] for name in FILES) == ["backbones", "benchmarks", "datasets", "teachers"]


@pytest.mark.slow
def test_the_files_pass_the_conformance_suite(plugins: Path) -> None:
    names = [Path(name).stem for name in FILES]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/conformance", "-k", " or ".join(names)]
    environment = {**os.environ, "PIPELINE_PLUGINS": str(plugins)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = {name: len(re.findall(rf"\[{name}\b.* PASSED", done.stdout)) for name in names}
    assert min(passed.values()) >= 4, passed


@pytest.mark.slow
def test_one_file_and_one_line_each_make_a_study(fresh: Project, plugins: Path) -> None:
    assert [len(yaml.safe_load(STUDY)[section]) for section in ("datasets", "teachers", "backbones", "benchmarks")] == [1] * 4
    (fresh.folder / "my_study.yaml").write_text(STUDY, encoding="utf-8")
    (fresh.folder / "quick.yaml").write_text(yaml.safe_dump(QUICK), encoding="utf-8")
    files = ("config.yaml", "my_study.yaml", "quick.yaml")
    without = fresh.run(sys.executable, "-m", "pipeline", "check", *files, check=False)
    assert without.returncode == 2
    assert "unknown" in without.stdout
    fresh.run(sys.executable, "-m", "pipeline", "check", *files, PIPELINE_PLUGINS=str(plugins))

    table = "results/tables/summary.parquet"
    fresh.snakemake(table, "--cores", "2", "--configfile", *files, PIPELINE_PLUGINS=str(plugins))

    rows = [r for r in pq.read_table(fresh.folder / table).to_pylist() if r["headline"] and r["row_type"] == "measured"]
    assert {(r["dataset"], r["backbone"], r["teacher"], r["benchmark"], r["n"]) for r in rows} == {
        ("walls", "llava_next_video", teacher, "how_many", 3) for teacher in ("none", "depth_anything")
    }
