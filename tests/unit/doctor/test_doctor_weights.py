"""Released weights: present or missing, faults found from headers, all of them listed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from doctor_studies import built_in, shards, write_config, write_header_without_numbers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pipeline.core import registry
from pipeline.core.errors import CheckpointError
from pipeline.core.releases import WeightFile
from pipeline.doctor.examine import examine
from pipeline.doctor.report import Report
from pipeline.doctor.selection import select
from pipeline.doctor.text import render
from pipeline.doctor.weights import parameters, weight_rows

KINDS = ("qwen2_5_vl", "llava_onevision", "internvl")


def member(kind: str, folder: Path) -> Any:
    return registry.create("backbones", {"name": "lab", "kind": kind, "options": {"checkpoint": str(folder)}})


@pytest.fixture
def copied(tiny_random_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_random_checkpoints["qwen2_5_vl"], tmp_path / "tiny_random_qwen"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_checkpoint_has_no_fault(kind: str, tiny_random_checkpoints: dict[str, Path]) -> None:
    folder = tiny_random_checkpoints[kind]
    assert len(shards(folder)) > 2
    backbone = member(kind, folder)
    backbone.check_weights()
    (file,) = backbone.weight_files()
    assert file.path == folder
    loaded = backbone.load(folder, device="cpu")
    size = backbone.size()
    assert size.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert size.tokens == loaded.view_grid(96, 128).count
    assert size.width == loaded.hidden_size
    assert size.layers == loaded.num_layers
    assert parameters(backbone.weight_files()) == size.parameters


def test_what_is_wrong_is_said(copied: Path) -> None:
    """Each fault on a checkpoint that is otherwise whole."""
    third = shards(copied)[2]
    content = third.read_bytes()
    third.unlink()
    with pytest.raises(CheckpointError, match=f"1 of {len(shards(copied)) + 1} weight files are missing, first {third.name}"):
        member("qwen2_5_vl", copied).check_weights()
    third.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        CheckpointError, match=rf"{third.name} cannot be read: it is cut short: [\d,]+ of {len(content):,} bytes"
    ):
        member("qwen2_5_vl", copied).check_weights()
    third.write_bytes(content)
    member("qwen2_5_vl", copied).check_weights()


def test_missing_and_misshapen_entries_are_counted(copied: Path) -> None:
    first = shards(copied)[0]
    state = load_file(first)
    gone, *others = sorted(name for name in state if "embed" not in name)  # lm_head is tied to the embeddings
    for name in others:
        state[name] = torch.zeros(3, 5)
    save_file({name: value for name, value in state.items() if name != gone}, first, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 missing") as caught:
        member("qwen2_5_vl", copied).check_weights()
    assert not others or f"{len(others)} of another shape" in str(caught.value)


def test_a_checkpoint_of_another_family_or_without_tokenizer(copied: Path) -> None:
    with pytest.raises(CheckpointError, match="describes a 'qwen2_5_vl' model"):
        member("internvl", copied).check_weights()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    with pytest.raises(CheckpointError, match="the tokenizer is missing"):
        member("qwen2_5_vl", copied).check_weights()
    (copied / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        member("qwen2_5_vl", copied).check_weights()
    assert member("qwen2_5_vl", copied).size() is None


def test_the_released_3b_is_checked_by_headers_alone(tiny_random_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The configuration of Qwen2.5-VL-3B with a file of 7.5 GB that holds no numbers: reading them would take minutes."""
    folder = tmp_path / "Qwen2.5-VL-3B-Instruct"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_random_checkpoints["qwen2_5_vl"] / name, folder)
    config = released_3b()
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if name != "lm_head.weight"}
    write_header_without_numbers(folder / "model.safetensors", shapes)
    backbone = member("qwen2_5_vl", folder)
    backbone.check_weights()
    release = backbone.release()
    assert release.name == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert backbone.size() == release.size
    assert release.bytes == 2 * release.size.parameters
    assert not backbone.licences().commercial
    write_header_without_numbers(folder / "model.safetensors", dict(list(shapes.items())[:-2]))
    with pytest.raises(CheckpointError, match="2 missing"):
        backbone.check_weights()


def released_3b() -> Qwen2_5_VLConfig:
    """The published configuration of Qwen/Qwen2.5-VL-3B-Instruct, as far as shapes depend on it."""
    text = {
        "model_type": "qwen2_5_vl_text",
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11008,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048}
    vision |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


def test_the_index_of_shards_may_be_damaged(copied: Path) -> None:
    (copied / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not an index of shards"):
        member("qwen2_5_vl", copied).check_weights()
    (copied / "config.json").write_text(json.dumps(AutoConfig.from_pretrained(copied).to_dict() | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="describes a 'bert' model"):
        member("qwen2_5_vl", copied).check_weights()


def report_of(content: dict[str, Any]) -> Report:
    return examine(write_config(content), [Path("study.yaml")], 125.0)


@pytest.mark.usefixtures("project", "fake_teacher")
def test_all_faults_are_listed_not_the_first(copied: Path) -> None:
    shards(copied)[1].unlink()
    Path("whole.pt").write_bytes(b"numbers")
    Path("broken.pt").write_bytes(b"faulty")
    teachers = {
        "whole": {"kind": "fake_released", "files": ["whole.pt"]},
        "broken": {"kind": "fake_released", "files": ["broken.pt"]},
        "absent": {"kind": "fake_released", "files": ["absent_a.pt", "whole.pt", "absent_b.pt"], "size": 5_000_000_000},
        "unused": {"kind": "fake_released", "files": ["unused.pt"]},
    }
    backbones = {"lab": {"kind": "qwen2_5_vl", "checkpoint": str(copied)}}
    study = {"teachers": ["whole", "broken", "absent"]}
    report = report_of(built_in(teachers=teachers, backbones=backbones, study=study))
    assert [(row.owner, row.state) for row in report.weights] == [
        ("teachers.whole", "complete"),
        ("teachers.broken", "faulty"),
        ("teachers.absent", "not there"),
        ("teachers.absent", "not checked"),
        ("teachers.absent", "not there"),
        ("backbones.lab", "faulty"),
    ]
    needs = [need.what for need in report.missing if need.area == "weights"]
    assert len(needs) == 4
    assert "3 missing entries" in needs[0]
    assert "absent_a.pt" in needs[1]
    assert "absent_b.pt" in needs[2]
    assert "weight files are missing" in needs[3]
    assert report.weights[0].bytes == 7
    assert report.weights[2].bytes == 5_000_000_000


@pytest.mark.usefixtures("project", "fake_teacher")
def test_the_source_of_a_control_counts_as_selected() -> None:
    teachers = {"lab": {"kind": "fake_released", "files": ["absent.pt"]}, "control": {"kind": "shuffled", "of": "lab"}}
    config = write_config(built_in(teachers=teachers, study={"teachers": ["control"]}))
    rows, needs = weight_rows(select(config))
    assert [row.owner for row in rows] == ["teachers.lab"]
    assert needs[0].fix == "get it from the authors' page"
    teacher = examine(config, [], 125.0).teachers[1]
    assert (teacher.name, teacher.commercial, teacher.weights_licence) == ("control", False, "CC BY-NC 4.0")


PULL = "lfs pull, or download {} alone"
JSON_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
)


@pytest.mark.parametrize("name", [*JSON_FILES, "a shard"])
def test_a_pointer_of_git_lfs_is_named_as_such_by_every_loader(copied: Path, name: str) -> None:
    """It was "header too large", or whatever a parser of JSON says, and the fix was to download everything again."""
    path = shards(copied)[1] if name == "a shard" else copied / name
    assert path.is_file()
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 5026873376\n")
    lab = member("qwen2_5_vl", copied)
    for look in (lab.check_weights, lambda: lab.load(copied, device="cpu")):
        with pytest.raises(CheckpointError, match="the pointer that Git LFS leaves") as caught:
            look()
        assert path.name in caught.value.what
        assert "5,026,873,376 bytes" in caught.value.what
        assert str(caught.value.fix).endswith(PULL.format(path.name))


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", b'{"a": ', b"\xff\xfe{", b"[" * 99_999], ids=range(5))
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_damaged_json_of_a_checkpoint_names_the_file(copied: Path, name: str, content: bytes) -> None:
    (copied / name).write_bytes(content)
    lab = member("qwen2_5_vl", copied)
    for look in (lab.check_weights, lambda: lab.load(copied, device="cpu")):
        with pytest.raises(CheckpointError, match=rf"{name} cannot be read: "):
            look()


def test_weights_of_another_size_are_not_downloaded_again(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (copied / "config.json").write_text(json.dumps(config))
    lab = member("qwen2_5_vl", copied)
    for look in (lab.check_weights, lambda: lab.load(copied, device="cpu")):
        with pytest.raises(CheckpointError, match=r"of another shape, first '[\w.]+': \([\d, ]+\) in the file") as caught:
            look()
        assert "config.json is of another model" in str(caught.value.fix)


def test_weights_in_another_format_are_named(copied: Path) -> None:
    for path in [*shards(copied), copied / "model.safetensors.index.json"]:
        path.unlink()
    torch.save({}, copied / "pytorch_model.bin")
    lab = member("qwen2_5_vl", copied)
    for look in (lab.check_weights, lambda: lab.load(copied, device="cpu")):
        with pytest.raises(CheckpointError, match=r"\(there are pytorch_model\.bin, which are not read\)"):
            look()


@pytest.mark.usefixtures("project")
def test_the_doctor_says_the_cause_and_not_to_download_it_again() -> None:
    """It dropped the cause and printed only "again from ...", so that 5 GB were downloaded again for nothing."""
    torch.save({"aggregator.camera_token": torch.zeros(1, 2, 1, 7)}, "model.pt")
    Path("pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 5026873376\n")
    torch.save({0: torch.zeros(3)}, "keys.pt")
    files = {"other": "model.pt", "pointer": "pointer.safetensors", "keys": "keys.pt"}
    teachers = {name: {"kind": "vggt", "checkpoint": file} for name, file in files.items()}
    report = report_of(built_in(teachers=teachers, study={"teachers": list(teachers)}))
    text = " ".join(render(report).split())
    assert "misshapen, first 'aggregator.camera_token': [1, 2, 1, 7] in the file, [1, 2, 1, 1024] in the network" in text
    assert "the file is whole but of another network, so not the same one again: download model.pt of facebook/VGGT-1B" in text
    assert "it is the pointer that Git LFS leaves where a file (5,026,873,376 bytes) was not downloaded" in text
    assert "weights hold an entry under 0 (int)" in text
    assert " again from " not in text


def test_parameters_of_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(())}, tmp_path / "a.safetensors")
    (tmp_path / "b.pt").write_bytes(b"x" * 400)
    a, b = WeightFile(tmp_path / "a.safetensors", "", ""), WeightFile(tmp_path / "b.pt", "", "")
    assert parameters((a,)) == 13
    assert parameters((a, b)) == 113
    assert parameters((WeightFile(tmp_path, "", ""),)) == 13
    assert parameters((a, WeightFile(tmp_path / "no.pt", "", "", 8))) == 15
    assert parameters((a, WeightFile(tmp_path / "no.pt", "", ""))) is None
    assert parameters(()) is None
    faulty = WeightFile(tmp_path / "a.safetensors", "", "", 4000)
    assert (parameters((faulty,)), parameters((faulty,), faulty=True)) == (13, 1000)
    assert parameters((a,), faulty=True) is None
