"""The pages are true: every command, flag, link and name in the code that they show exists; lines stay short."""

from __future__ import annotations

import argparse
import ast
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_options import option_items
from scannet_files import write_release

from pipeline.__main__ import commands, main, parser
from pipeline.core.registry import member_class, member_files
from pipeline.scenes.index import SceneIndex
from pipeline.study.config import read_config
from pipeline.study.specs import Specs

ROOT = Path(__file__).parents[3]
FILES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
COLUMNS = 125
WORDS_PER_MINUTE, CODE_LINES_PER_MINUTE = 200, 10
"""Paces of a reader, as docs/extending.md states them."""


def _commands() -> Iterator[tuple[str, str]]:
    """(page, command line) of every ``python -m pipeline`` in code blocks and in the text."""
    for name, text in PAGES.items():
        joined = text.replace("\\\n", " ")
        for found in re.findall(r"python -m pipeline ([^`#\n]+)", joined):
            yield name, found.strip()


def _flags(command: argparse.ArgumentParser) -> set[str]:
    """Options of a command and of all its subcommands."""
    found = {option for action in command._actions for option in action.option_strings}
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {flag for sub in action.choices.values() for flag in _flags(sub)}
    return found


def _subcommand(top: argparse.ArgumentParser, word: str) -> argparse.ArgumentParser | None:
    choices = [a.choices for a in top._actions if isinstance(a, argparse._SubParsersAction)]
    return choices[0].get(word) if choices else None


@pytest.mark.parametrize(("page", "command"), sorted(set(_commands())))
def test_a_command_of_a_page_exists(page: str, command: str) -> None:
    words = command.split()
    current = parser(words[0])
    while words and (deeper := _subcommand(current, words[0])) is not None:
        current, words = deeper, words[1:]
    assert current.prog != parser().prog, f"{page} names the command {words[:1]}"
    assert {w.split("=")[0] for w in words if w.startswith("--")} <= _flags(current), f"{page}: {command}"


def test_flags_that_pages_mention_exist() -> None:
    """`--json` in a sentence: a flag of some command, of Snakemake or of make, and not a memory of one."""
    of_others = {
        *("--configfile", "--cores", "--forcerun", "--profile", "--rerun-incomplete", "--resources"),
        *("--set-resources", "--set-threads", "--unlock"),
    }
    known = set().union(*(_flags(parser(name)) for name in commands()), of_others)
    named = {(name, flag) for name, text in PAGES.items() for flag in re.findall(r"`(--[a-z-]+)", text)}
    assert {(name, flag) for name, flag in named if flag not in known} == set()


def _studies() -> Iterator[tuple[str, str]]:
    """(page, text) of YAML blocks that are laid over config.yaml: those that do not begin in the middle of a mapping."""
    for name, text in PAGES.items():
        for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if not block.startswith(" ") and name != "docs/extending.md":  # its plug-ins: workflow/test_workflow_extension.py
                yield name, block


@pytest.mark.parametrize(("page", "block"), list(_studies()))
def test_configuration_that_a_page_shows_is_valid(page: str, block: str, tmp_path: Path) -> None:
    shown = tmp_path / f"{Path(page).stem}.yaml"
    shown.write_text(block, encoding="utf-8")
    read_config([ROOT / "config.yaml", shown])


@pytest.mark.parametrize("kind", sorted(member_files("datasets")))
def test_every_option_of_a_dataset_stands_in_its_page(kind: str) -> None:
    """With default and description as the code has them; `python tests/doc_options.py KIND` prints the list."""
    page = ROOT / "docs" / f"{kind}.md"
    shown = " ".join(page.read_text(encoding="utf-8").split())
    items = list(option_items(member_class("datasets", kind).options_model))
    assert [item for item in items if item not in shown] == []
    listed = shown.split("## Options")[1].split(" ## ")[0]
    assert len(re.findall(r"(?:^| )- `[\w.]+`", listed)) == len(items), "no option that is not there any more"


@pytest.mark.parametrize(("number", "splits"), [(0, {"train": 1}), (1, {"val": 1}), (2, {"train": 2, "val": 1})])
def test_studies_of_the_page_of_scannet_can_be_prepared(number: int, splits: dict[str, int], tmp_path: Path) -> None:
    """One scan, evaluation only, the whole: on a small release in the real formats."""
    block = [text for page, text in _studies() if page == "docs/scannet.md"][number]
    write_release(tmp_path / "release")
    shown = tmp_path / "study.yaml"
    shown.write_text(block.replace("root: data/scannet", f"root: {tmp_path / 'release'}"), encoding="utf-8")
    spec = Specs(read_config([ROOT / "config.yaml", shown])).prepare("scannet")
    manifest = tmp_path / "scenes/manifest.json"
    assert main(["prepare", "--spec", spec, "--out", str(manifest)]) == 0
    assert Counter(record.split for record in SceneIndex(manifest)) == splits


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_of_a_page_exist(page: str) -> None:
    links = re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", PAGES[page])
    linked = {((ROOT / page).parent / path if path else ROOT / page, anchor) for path, anchor in links}
    named = {(ROOT / path, "") for path in re.findall(r"`((?:pipeline|tests|workflow|slurm|envs)/[\w./-]+)`", PAGES[page])}
    missing = {str(path) for path, _ in linked | named if not path.exists() and not path.stem.startswith("my_")}
    assert missing == set()
    assert {f"{path}#{anchor}" for path, anchor in linked if anchor and anchor not in _anchors(path)} == set()


def _names(path: Path) -> set[str]:
    """Functions, classes and methods (``Class.method``) of a Python file."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = node.body if isinstance(node, ast.ClassDef) else []
            found |= {node.name, *(f"{node.name}.{n.name}" for n in inner if isinstance(n, ast.FunctionDef))}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_functions_and_classes_of_a_page_exist(page: str) -> None:
    """``[`Class.method`](path.py)`` is in that file."""
    named = re.findall(r"\[`([\w.]+)`\]\(([\w./-]+\.py)\)", PAGES[page])
    assert [(name, path) for name, path in named if name not in _names((ROOT / page).parent / path)] == []


def test_the_architecture_has_the_layers_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGES["docs/architecture.md"].split("## The package")[1], re.MULTILINE)
    layers = [set(re.findall(r"\w+", layer)) for layer in declared["layers"]]
    assert [set(re.findall(r"\w+", row)) for row in rows] == [layer for layer in layers if layer != {"__main__"}]


def _minutes(section: str) -> int:
    """Time to read a section of docs/extending.md."""
    code = re.findall(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    words = len(re.sub(r"^```.*?^```$", "", section, flags=re.MULTILINE | re.DOTALL).split())
    lines = sum(bool(line.strip()) for block in code for line in block.splitlines())
    return math.ceil(words / WORDS_PER_MINUTE + lines / CODE_LINES_PER_MINUTE)


def test_reading_times_of_the_examples_are_computed() -> None:
    sections = re.split(r"^## ", PAGES["docs/extending.md"], flags=re.MULTILINE)
    stated = {text: re.findall(r"^\*Reading time: (\d+) minutes\.\*$", text, re.MULTILINE) for text in sections}
    found = [(text.split("\n")[0], int(minutes[0]), _minutes(text)) for text, minutes in stated.items() if minutes]
    assert len(found) == 4
    assert [entry for entry in found if entry[1] != entry[2]] == []


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_a_page_can_be_read(page: str) -> None:
    """Tables apart: their rows cannot be broken."""
    lines = [line for line in PAGES[page].splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > COLUMNS] == []
