"""Configuration files that YAML 1.1 or Python would misread, or that no study can be: one message each, no traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.study.config import StudyConfig, read_config
from pipeline.study.configfile import DEEPEST, LARGEST, read_yaml

ROOT = Path(__file__).parents[3]
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2 * DEEPEST))
FILES = {
    "key twice": (
        "recipes:\n  3drs: {weight: 0.5,\n    weight: 5.0}",
        "the key 'weight' is given twice, first in line 2",
        "line 3",
    ),
    "section twice": ("study: {seeds: [0]}\nstudy: {seeds: [1]}", "the key 'study' is given twice, first in line 1", "line 2"),
    "octal": ("study: {seeds: [010, 1]}", "010 without quotes is a number to another base", "without leading zeros"),
    "yes": ("recipes: {3drs: {weight: yes}}", "yes without quotes is true or false", "or put it in quotes: 'yes'"),
    "no as a name": ("teachers: {no: {}}", "no without quotes is true or false", "line 1"),
    "base 60": ("recipes: {3drs: {weight: 1:30}}", "1:30 without quotes is a number to another base", "line 1"),
    "base 60 float": ("recipes: {3drs: {weight: 1:30.5}}", "1:30.5 without quotes is a number to the base 60", "line 1"),
    "date": ("teachers: {a: {checkpoint: 2024-01-31}}", "2024-01-31 without quotes is a date", "'2024-01-31'"),
    "brackets": ("a: " + "[" * 5000, f"nested more than {DEEPEST} deep", "config.yaml"),
    "nested": ("a: " + "[" * 40 + "]" * 40, f"nested more than {DEEPEST} deep", "line 1"),
    "chain of aliases": (CHAIN, f"nested more than {DEEPEST} deep", "line"),
    "in itself": ("a: &a [*a]", f"nested more than {DEEPEST} deep", "line 1"),
    "alias bomb": (BOMB, f"more than {LARGEST} values", "line"),
    "list": ("- a\n- b\n", "does not hold a mapping", "datasets"),
    "nothing": ("# nothing\n", "does not hold a mapping", "datasets"),
    "tab": ("study:\n\tseeds: [0]", "is not valid YAML: found character '\\t'", "line 2, column 1"),
    "own type": ("a: !!python/name:os.system", "is not valid YAML: could not determine a constructor", "line 1"),
    "two documents": ("a: 1\n---\nb: 2\n", "is not valid YAML", "line 2"),
    "endless number": ("a: " + "9" * 5000, "holds a value that cannot be read", "4300"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_means_something_else_is_refused(case: str, tmp_path: Path) -> None:
    text, message, place = FILES[case]
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert message in caught.value.what
    assert place in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("study: {seeds: [0]}\n".encode("utf-16"), "is UTF-16 text"),
        ("a: 1\n# Zürich\n".encode("latin-1"), "is not UTF-8 text: byte 0xfc in line 2"),
        (b"a: \x00\n", "special characters are not allowed"),
    ],
    ids=["utf-16", "latin-1", "control"],
)
def test_text_that_is_not_utf_8(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_yaml(path)


def test_what_yaml_offers_stays_allowed(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "\ufeffa: &a {b: 0, c: 1e-3, d: 'yes', e: \"010\", f: True, g: ~, h: 0x10, i: 1_000}\nj: {<<: *a, b: 2}\nk: [*a, *a]\n",
        encoding="utf-8",
    )
    content = read_yaml(path)
    assert content["a"] == {"b": 0, "c": "1e-3", "d": "yes", "e": "010", "f": True, "g": None, "h": 16, "i": 1000}
    assert content["j"]["b"] == 2
    assert content["k"] == [content["a"]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("recipes: {3drs: {weight: .inf}}", "weight: Input should be a finite number"),
        ("recipes: {3drs: {weight: 1e999}}", "weight: Input should be a finite number"),
        ("recipes: {3drs: {weight: true}}", "weight: true is no number"),
        ("recipes: {3drs: {layers: [true]}}", "layers: true is no number"),
        ("study: {seeds: [99999999999999999999]}", "seeds: 99999999999999999999 is larger than"),
        ("recipes: {3drs: {weight: [" + "[x], " * 200 + "]}}", "weight: Input should be a valid number"),
        ("study: {seeds: 0}", "study.seeds: must be a list, as [a, b] (got 0)"),
        ("study: {seeds: []}", "study.seeds: needs entries, at least 1 (got [])"),
        ("study: {seeds: [" + "x, " * 200 + "]}", " more"),
        ("datasets: {rooms: {kind: 3}}", "the kind is 3, not a name"),
        ("datasets: {rooms: {kind: null}}", "the kind is None, not a name"),
        ("datasets: {1: {}}", "Input should be a valid string"),
        ("recipes: {3drs: {1: 2}}", "recipes.3drs.1.[key]: Input should be a valid string"),
        ("teachers: {none: {kind: random}}", "`none` is the baseline without features and cannot be of kind 'random'"),
        (f"teachers: {{{'a' * 65}: {{kind: random}}}}", "64 characters at most"),
    ],
)
def test_values_that_no_option_can_have(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "change.yaml"
    path.write_text(change, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_config([ROOT / "config.yaml", path])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_a_message_does_not_write_out_what_it_was_given() -> None:
    """A hundred million values behind nine aliases made a message of megabytes."""
    shared: list[object] = ["x"] * 10
    for _ in range(8):
        shared = [shared] * 10
    with pytest.raises(ConfigError) as caught:
        StudyConfig({"datasets": {"rooms": {"train": shared}}, "study": {"seeds": shared}})
    assert len(str(caught.value)) < 2000
