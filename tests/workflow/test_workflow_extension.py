"""The promise to extenders: a new teacher or benchmark is one new file and one line of configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from workflow_project import SMOKE, Project

from pipeline.configfile import merge

pytestmark = pytest.mark.slow

COLOURS = '''
"""A teacher that tells the mean colour of every quarter of a view."""

import numpy as np

from pipeline.grid import TokenGrid
from pipeline.teachers.base import Teacher, TeacherFeatures


class Colours(Teacher):
    licence = "Apache-2.0"
    dim = 3

    def grid(self, height_px, width_px):
        return TokenGrid(2, 2)

    def encode(self, scene):
        views, height, width, _ = scene.rgb.shape
        quarters = scene.rgb.reshape(views, 2, height // 2, 2, width // 2, 3).mean(axis=(2, 4)) / 255
        return TeacherFeatures(tokens=quarters.astype(np.float32), grid=self.grid(height, width))
'''

HOW_MANY = '''
"""How many objects the room has, asked once per scene; scored by exact match."""

from pipeline.benchmarks.base import Benchmark
from pipeline.metrics.results import Results
from pipeline.scene import Answer, Sample


class HowMany(Benchmark):
    task = "qa"
    headline = "em"
    generation_tokens = 4

    def samples(self, index, split):
        return [
            Sample(
                sample_id=record.scene_id,
                scene_id=record.scene_id,
                benchmark=self.name,
                task=self.task,
                text="how many objects are in the room?",
                references=(str(len(record.objects)),),
            )
            for record in index.split(split)
        ]

    def parse(self, sample, output):
        return Answer(text=output.raw_text.strip(), parsed=bool(output.raw_text.strip()))

    def score(self, samples, answers, index):
        results = Results(samples, self.bootstrap)
        results.mean("em", [answer.text in sample.references for sample, answer in zip(samples, answers)])
        return results.found
'''


def _study() -> str:
    """The smoke study with one backbone, no teacher but `none`, and no lists of teachers and benchmarks."""
    content: dict[str, object] = {}
    root = Path(__file__).resolve().parents[2]
    for file in SMOKE:
        merge(content, yaml.safe_load((root / file).read_text(encoding="utf-8")))
    content["teachers"] = {"none": {}}
    content["study"] = {"datasets": ["rooms"], "backbones": ["internvl_tiny"], "seeds": [0]}
    return yaml.safe_dump(content, sort_keys=False)


def test_one_file_and_one_line_each(finished_copy: Callable[[], Project]) -> None:
    project = finished_copy()
    plugins = project.folder / "plugins"
    for name, text in (("teachers/colours.py", COLOURS), ("benchmarks/how_many.py", HOW_MANY)):
        (plugins / name).parent.mkdir(parents=True)
        (plugins / name).write_text(text, encoding="utf-8")
    without = _study()
    extended = without.replace("teachers:\n", "teachers:\n  colours: {}\n").replace(
        "benchmarks:\n", "benchmarks:\n  how_many: {}\n"
    )
    assert len(extended.splitlines()) == len(without.splitlines()) + 2
    (project.folder / "config.yaml").write_text(extended, encoding="utf-8")

    project.snakemake("results/tables/summary.parquet", "--cores", "2", PIPELINE_PLUGINS=str(plugins))

    table = pq.read_table(project.folder / "results/tables/summary.parquet").to_pylist()
    rows = [r for r in table if r["headline"] and r["kind"] == "measured" and r["subset"] == "all"]
    assert {row["teacher"] for row in rows} == {"none", "colours"}
    assert ("colours", "how_many") in {(row["teacher"], row["benchmark"]) for row in rows}
    assert {row["n"] for row in rows if row["benchmark"] == "how_many"} == {6}
