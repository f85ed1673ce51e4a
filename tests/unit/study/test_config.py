import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline.core.errors import ConfigError, UnknownNameError
from pipeline.study.config import StudyConfig, json_schema, read_config
from pipeline.study.configfile import merge

ROOT = Path(__file__).parents[3]
PLUGGED_IN = """
from pydantic import Field
from pipeline.core.options import Options
from pipeline.teachers.network import NetworkTeacher

class PluggedInOptions(Options):
    cells: int = Field(4, ge=1, description="Cells.")

class PluggedIn(NetworkTeacher):
    options_model = PluggedInOptions
    dim = 3
    def grid(self, height_px, width_px):
        raise NotImplementedError
"""


@pytest.fixture
def content():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def test_the_shipped_config_and_studies_load():
    read_config([ROOT / "config.yaml"])
    studies = sorted((ROOT / "workflow" / "studies").glob("*.yaml"))
    assert studies
    for study in studies:
        read_config([ROOT / "config.yaml", study])


def test_the_built_in_study_is_the_promised_matrix():
    study = read_config([ROOT / "config.yaml"]).study
    assert len(study["backbones"]) == 3
    assert set(study["teachers"]) >= {"none", "geometry", "vggt_rooms", "shuffled"}
    assert study["benchmarks"] == ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d", "correspondence")
    assert len(study["seeds"]) >= 2


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("datsets",), {}, "did you mean 'datasets'"),
        (("datasets", "rooms", "trian"), 3, "did you mean 'train'"),
        (("datasets", "rooms", "train"), -3, "train"),
        (("study", "teachers"), ["vgtt_rooms"], "did you mean 'vggt_rooms'"),
        (("study", "backbones"), [], "empty list"),
        (("study", "seeds"), [0, 0], "named twice"),
        (("study", "seeds"), [-1], "negative"),
        (("teachers", "shuffled", "of"), "geometri", "did you mean 'geometry'"),
        (("teachers", "Bad-Name"), {"kind": "geometry"}, "not a name"),
        (("teachers", "vggt_rooms", "pretrain", "dataset"), "rooms_pretrian", "did you mean 'rooms_pretrain'"),
        (("backbones", "qwen2_5_vl_tiny", "kind"), "qwen2_5_lv", "did you mean 'qwen2_5_vl'"),
        (("recipes", "3drs", "wieght"), 1.0, "did you mean 'weight'"),
        (("recipes", "3drs", "train_on"), ["scanqqa"], "did you mean 'scanqa'"),
        (("evaluation",), {"split": "testing"}, "split"),
    ],
)
def test_a_mistake_is_answered_with_its_place_and_the_way_out(content, path, value, message):
    target = content
    for key in path[:-1]:
        target[key] = target.get(key) or {}
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ConfigError) as error:
        StudyConfig(content)
    assert message in str(error.value)
    assert "Traceback" not in str(error.value)


def test_unknown_names_list_what_is_there(content):
    content["study"]["recipes"] = ["4drs"]
    with pytest.raises(UnknownNameError, match="3drs"):
        StudyConfig(content)


def test_omitted_lists_mean_every_key_and_none_comes_first(content):
    content["study"] = {"seeds": [3]}
    config = StudyConfig(content)
    assert config.study["backbones"] == tuple(content["backbones"])
    assert config.study["teachers"][0] == "none"
    assert set(config.study["teachers"]) == {"none", *content["teachers"]}


def test_merge_is_deep_for_mappings_and_replaces_lists():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    merged = merge(copy.deepcopy(base), {"a": {"y": [3]}, "c": 2})
    assert merged == {"a": {"x": 1, "y": [3]}, "b": 1, "c": 2}


def test_broken_yaml_and_missing_files_are_config_errors(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_config([bad])
    with pytest.raises(ConfigError, match="does not exist"):
        read_config([tmp_path / "no.yaml"])


def test_json_schema_is_not_behind_the_code_and_fits_the_shipped_config(content):
    stored = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())
    assert stored == json_schema(), "run `make format`"
    jsonschema.validate(content, stored)
    for study in sorted((ROOT / "workflow/studies").glob("*.yaml")):
        changed = copy.deepcopy(content)
        merge(changed, yaml.safe_load(study.read_text()))
        jsonschema.validate(changed, stored)
    content["recipes"]["3drs"]["wieght"] = 1
    with pytest.raises(jsonschema.ValidationError, match="wieght"):
        jsonschema.validate(content, stored)


@pytest.mark.parametrize(
    ("section", "name", "entry", "fault"),
    [
        ("teachers", "vggt_rooms", {"kind": "vggt", "sise": "1b"}, "'sise' was unexpected"),
        ("teachers", "random", {"layer": 1}, "'layer' was unexpected"),
        ("datasets", "more", {"kind": "rooms", "train": -1}, "-1 is less than the minimum of 0"),
        ("backbones", "internvl", {"size": "huge"}, "'huge'"),
        ("benchmarks", "scanqa", {"meteor": "maybe"}, "'maybe'"),
        ("teachers", "mine", {"kind": "of_a_plugin", "anything": 1}, None),
        ("teachers", "random", {"kind": "of_a_plugin", "anything": 1}, None),
        ("teachers", "random", None, None),
    ],
)
def test_json_schema_knows_the_options_of_each_kind(content, section, name, entry, fault):
    """By `kind`, else by the key; so editors complete and check them."""
    content[section][name] = entry
    found = " ".join(error.message for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(content))
    assert (fault in found) if fault else not found


def test_json_schema_holds_the_options_of_plug_ins(content, tmp_path, monkeypatch):
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "plugged_in.py").write_text(PLUGGED_IN)
    monkeypatch.setenv("PIPELINE_PLUGINS", str(tmp_path))
    content["teachers"]["plugged_in"] = {"cells": 0}
    with pytest.raises(jsonschema.ValidationError, match="0 is less than the minimum of 1"):
        jsonschema.validate(content, json_schema())
