"""Every teacher and backbone kind, found by scanning, says what the doctor asks: real licences, files, where to get them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.backbones.base import Backbone
from pipeline.core import registry
from pipeline.core.releases import Licence, WeightFile
from pipeline.teachers.base import Teacher

TEACHERS = sorted(registry.member_files("teachers"))
BACKBONES = sorted(registry.member_files("backbones"))
NOT_A_LICENCE = re.compile(r"not stated|unknown|to ?do|tbd|\?\?|^$", re.IGNORECASE)
NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)


def teacher_of(kind: str) -> Teacher:
    cls = registry.member_class("teachers", kind)
    teacher: Teacher = registry.create("teachers", {"name": kind, "kind": kind, "options": dict(cls.example)})
    return teacher


def backbone_of(kind: str, **options: Any) -> Backbone:
    backbone: Backbone = registry.create("backbones", {"name": kind, "kind": kind, "options": options})
    return backbone


def check_licences(licences: Licence) -> None:
    for text in (licences.code, licences.weights):
        assert not NOT_A_LICENCE.search(text), text
        # Whoever names a non-commercial licence of the weights may not promise commercial use.
    assert not (NON_COMMERCIAL.search(licences.weights) and licences.commercial)


def check_files(files: tuple[WeightFile, ...]) -> None:
    for file in files:
        assert isinstance(file.path, Path)
        assert file.what
        assert file.source
        assert file.bytes is None or file.bytes > 0


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_teacher_answers_for_its_example(kind: str) -> None:
    teacher = teacher_of(kind)
    check_licences(teacher.licences())
    check_files(teacher.weight_files())
    if not teacher.weight_files():
        teacher.check_weights()


RELEASED_TEACHERS: dict[str, tuple[dict[str, Any], str]] = {
    "vggt": ({"size": "1b"}, "CC BY-NC"),
    "flare": ({}, "CC BY-NC-SA"),
    "pi3": ({}, "CC BY-NC"),
    "dinov2": ({}, "Apache-2.0"),
    "dinov3": ({}, "DINOv3"),
    "siglip2": ({}, "Apache-2.0"),
    "clip": ({}, "MIT"),
    "mae": ({}, "CC BY-NC"),
}
"""Released checkpoints: options besides `checkpoint`, and a part of the weights' published licence."""


@pytest.mark.parametrize("kind", [kind for kind in RELEASED_TEACHERS if kind in TEACHERS])
def test_a_released_teacher_names_its_missing_file_and_licence(kind: str, tmp_path: Path) -> None:
    options, licence = RELEASED_TEACHERS[kind]
    path = tmp_path / "no_such_weights.safetensors"
    teacher = registry.create("teachers", {"name": "t", "kind": kind, "options": options | {"checkpoint": str(path)}})
    check_licences(teacher.licences())
    assert licence in teacher.licences().weights
    files = teacher.weight_files()
    check_files(files)
    assert path in [file.path for file in files]


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_built_here_needs_nothing(kind: str) -> None:
    backbone = backbone_of(kind)
    assert backbone.licences() == Licence("Apache-2.0 (this project)", "none", commercial=True)
    assert backbone.weight_files() == ()
    backbone.check_weights()
    assert backbone.size() is None


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_released_backbone_answers_before_it_is_downloaded(kind: str) -> None:
    releases = registry.member_class("backbones", kind).releases
    assert releases
    for release in releases:
        backbone = backbone_of(kind, checkpoint=f"weights/{release.folder}")
        check_licences(backbone.licences())
        (file,) = backbone.weight_files()
        check_files((file,))
        assert (file.bytes, str(file.path)) == (release.bytes, f"weights/{release.folder}")
        assert release.name in file.source
        size = backbone.size()
        assert size == release.size
        # bf16, and an output table that some checkpoints store beside the tied input table
        assert 2 * size.parameters <= release.bytes < 2.5 * size.parameters
    other = backbone_of(kind, checkpoint="weights/my_own")
    assert not other.licences().commercial
    assert other.size() is None
    assert releases[0].name in other.weight_files()[0].source


def test_asked_tokens_change_the_size() -> None:
    folder = "weights/Qwen2.5-VL-7B-Instruct"
    own = backbone_of("qwen2_5_vl", checkpoint=folder).size()
    asked = backbone_of("qwen2_5_vl", checkpoint=folder, tokens_per_view=[7, 28]).size()
    more = backbone_of("qwen2_5_vl", checkpoint=folder, tokens_per_view=[28, 28]).size()
    assert own is not None
    assert own == asked
    assert more is not None
    assert (more.tokens, more.patches) == (784, 3136)
