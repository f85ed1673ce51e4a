"""What `check` says before the first hour: studies that are well-formed and could not come to an end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.backbones._transformers.releases import TINY_LAYERS
from pipeline.core.errors import ConfigError
from pipeline.study.config import read_config

ROOT = Path(__file__).parents[3]
LAB = """
teachers: {{mine: {{kind: {kind}, checkpoint: {folder}, layers: [{layer}]}}}}
study: {{teachers: [mine]}}
"""


def changed(tmp_path: Path, text: str) -> list[Path]:
    path = tmp_path / "change.yaml"
    path.write_text(text, encoding="utf-8")
    return [ROOT / "config.yaml", path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("recipes: {3drs: {layers: [-1, 40]}}", "has 3 layers and no layer 40"),
        ("recipes: {3drs: {layers: [-4]}}", "has 3 layers and no layer -4"),
        ("benchmarks: {correspondence: {layer: 9}}", "has 3 layers and no layer 9"),
        ("recipes: {3drs: {teacher_layer: layer11}}", "the features of teacher 'geometry' have no layer 'layer11'"),
        (
            "{recipes: {3drs: {teacher_layer: layer11}}, study: {teachers: [shuffled]}}",
            "the features of teacher 'shuffled' have no layer",
        ),
        (
            "recipes: {3drs: {train_on: [scanqa, correspondence]}}",
            "'correspondence' measures the model and has no training samples",
        ),
        ("features: {splits: [val, test]}", "training reads features of the split train, and only val, test"),
        ("benchmarks: {correspondence: {voxel_m: 1.0e-9}}", "voxel_m: Input should be greater than or equal to 0.001"),
        ("{teachers: {random: {layers: [7]}}, study: {teachers: [random]}}", "the network has no block 7"),
        (
            "{teachers: {d: {kind: dinov2, size: tiny_untrained, layers: [2]}}, study: {teachers: [d]}}",
            "the network has no block 2",
        ),
    ],
)
def test_a_study_that_would_fail_later(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(changed(tmp_path, change))
    assert message in str(caught.value)
    assert "where:" in str(caught.value)


def test_what_the_study_does_not_select_may_be_anything(tmp_path: Path) -> None:
    read_config(changed(tmp_path, "{recipes: {other: {layers: [40], teacher_layer: x, train_on: [correspondence]}}}"))
    read_config(changed(tmp_path, "{features: {splits: [val]}, study: {teachers: [none]}}"))
    read_config(changed(tmp_path, f"recipes: {{3drs: {{layers: [0, {TINY_LAYERS}, -{TINY_LAYERS}]}}}}"))


def test_tiny_models_have_the_layers_that_are_said() -> None:
    from pipeline.backbones._transformers.loaded import tiny_text_config

    class Tokenizer:
        pad_token_id = eos_token_id = 0

        def __len__(self) -> int:
            return 300

    assert tiny_text_config(Tokenizer())["num_hidden_layers"] == TINY_LAYERS  # type: ignore[arg-type]


@pytest.mark.parametrize("nested", [True, False])
def test_a_checkpoint_says_its_layers_in_its_configuration(nested: bool, tmp_path: Path) -> None:
    folder = tmp_path / "download"
    folder.mkdir()
    layers = {"num_hidden_layers": 12}
    (folder / "config.json").write_text(json.dumps({"text_config": layers, "vision_config": layers} if nested else layers))
    backbone = f"{{backbones: {{lab: {{kind: internvl, checkpoint: {folder}}}}}, study: {{backbones: [lab]}}}}"
    files = changed(tmp_path, backbone)
    read_config(files)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("recipes: {3drs: {layers: [13]}}")
    with pytest.raises(ConfigError, match="backbone 'lab' has 12 layers and no layer 13"):
        read_config([*files, recipe])
    read_config(changed(tmp_path, LAB.format(kind="dinov2", folder=folder, layer=11)))
    with pytest.raises(ConfigError, match="the network has no block 12"):
        read_config(changed(tmp_path, LAB.format(kind="dinov2", folder=folder, layer=12)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("datasets: {rooms: {test: 0}}", "rooms will have no scene of split test"),
        ("datasets: {rooms_pretrain: {train: 0, val: 1}}", "rooms_pretrain will have no scene of split train"),
        (
            "{benchmarks: {vsibench: {}}, study: {benchmarks: [vsibench]}}",
            "rooms will have no annotations of vsibench (test)",
        ),
    ],
)
def test_check_refuses_what_preparing_cannot_give(
    change: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = changed(tmp_path, change)
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(files[0])]) == 0
    assert main(["check", *map(str, files)]) == 2
    assert message in capsys.readouterr().err
    for name in ("rooms", "rooms_pretrain"):  # prepared already: the same answer
        (tmp_path / f"results/scenes/{name}").mkdir(parents=True)
        (tmp_path / f"results/scenes/{name}/manifest.json").write_text("{}")
    assert main(["check", *map(str, files)]) == 2
    assert message in capsys.readouterr().err
