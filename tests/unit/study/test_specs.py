import json
from pathlib import Path

import pytest
import yaml

from pipeline.core.provenance import digest
from pipeline.study import paths
from pipeline.study.config import StudyConfig
from pipeline.study.specs import Specs

ROOT = Path(__file__).parents[3]


def specs(**changes):
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    for section, update in changes.items():
        content.setdefault(section, {})
        for key, value in update.items():
            content[section][key] = value
    return Specs(StudyConfig(content))


def test_one_teachers_options_change_only_its_own_specs():
    before, after = specs(), specs(teachers={"random": {"seed": 7}})
    assert before.extract("rooms", "random", "shard0") != after.extract("rooms", "random", "shard0")
    assert before.extract("rooms", "geometry", "shard0") == after.extract("rooms", "geometry", "shard0")
    run = ("rooms", "internvl_tiny", "random", "3drs", "0")
    assert before.train(*run) != after.train(*run)
    assert before.predict(*run) == after.predict(*run)
    assert before.score(*run) == after.score(*run)
    other = ("rooms", "internvl_tiny", "geometry", "3drs", "0")
    assert before.train(*other) == after.train(*other)


def test_specs_hold_every_default_and_a_code_digest():
    spec = json.loads(specs().train("rooms", "internvl_tiny", "geometry", "3drs", "1"))
    assert spec["seed"] == 1
    assert spec["recipe"]["temperature"] == 0.07
    assert spec["backbone"]["name"] == "internvl_tiny"
    assert len(spec["code"]) >= 16


def test_inputs_of_teachers_by_their_nature():
    found = specs()
    assert found.features("rooms", "none") == []
    assert found.features("rooms", "geometry") == ["results/features/rooms/geometry/shard0/manifest.json"]
    assert found.teacher_weights("geometry") == []
    assert found.teacher_weights("vggt_rooms") == ["results/teachers/vggt_rooms/manifest.json"]
    source = found.teacher("shuffled").source()
    assert found.feature_sources("rooms", "shuffled") == [f"results/features/rooms/{source}/shard0/manifest.json"]
    assert found.backbone_weights("internvl_tiny") == ["results/backbones/internvl_tiny/manifest.json"]


def test_shards_multiply_extract_jobs_but_not_derived_views():
    found = specs(features={"shards": 3})
    assert len(found.features("rooms", "geometry")) == 3
    assert len(found.features("rooms", "shuffled")) == 1
    assert len(found.feature_sources("rooms", "shuffled")) == 3


def test_the_cell_lists_every_run_and_score():
    found = specs()
    study = found.config.study
    runs = len(study["teachers"]) * len(study["recipes"]) * len(study["seeds"])
    assert len(found.cell_inputs(paths.RUN_MANIFEST, "rooms", "internvl_tiny")) == runs
    scores = found.cell_inputs(paths.SCORES, "rooms", "internvl_tiny")
    assert len(scores) == len(set(scores)) == runs * len(study["benchmarks"])


def test_the_cell_asks_for_what_train_and_score_record():
    found = specs()
    cell, run = json.loads(found.cell("rooms", "internvl_tiny")), ("rooms", "internvl_tiny", "shuffled", "3drs", "0")
    train, score, made = json.loads(found.train(*run)), json.loads(found.score(*run)), cell["made_with"]
    assert (made["backbone"], made["recipes"]["3drs"]) == (train["backbone"], train["recipe"])
    assert made["teachers"]["shuffled"] == train["member_of_features"] is not None
    assert made["scores"] == {"split": score["split"], "bootstrap": score["bootstrap"]}
    assert cell["benchmarks"] == score["benchmarks"]
    spec = digest(cell)
    assert json.loads(found.summary())["cells"]["results/tables/cells/rooms/internvl_tiny.parquet"] == spec


@pytest.mark.parametrize("command", ["prepare", "pretrain_teacher", "pretrain_backbone", "summary", "report"])
def test_specs_are_canonical_json(command):
    found = specs()
    argument = {"prepare": ["rooms"], "pretrain_teacher": ["vggt_rooms"], "pretrain_backbone": ["internvl_tiny"]}.get(
        command, []
    )
    text = getattr(found, command)(*argument)
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
