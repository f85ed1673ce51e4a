"""The pages for users are true: every command and flag that they show exists, every link leads somewhere, lines stay short."""

from __future__ import annotations

import argparse
import re
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
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
COLUMNS = 128
"""As for code (pyproject.toml)."""


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
            if not block.startswith(" ") and name != "extending.md":  # its plug-ins: workflow/test_workflow_extension.py
                yield name, block


@pytest.mark.parametrize(("page", "block"), list(_studies()))
def test_configuration_that_a_page_shows_is_valid(page: str, block: str, tmp_path: Path) -> None:
    shown = tmp_path / f"{page}.yaml"
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
    block = [text for page, text in _studies() if page == "scannet.md"][number]
    write_release(tmp_path / "release")
    shown = tmp_path / "study.yaml"
    shown.write_text(block.replace("root: data/scannet", f"root: {tmp_path / 'release'}"), encoding="utf-8")
    spec = Specs(read_config([ROOT / "config.yaml", shown])).prepare("scannet")
    manifest = tmp_path / "scenes/manifest.json"
    assert main(["prepare", "--spec", spec, "--out", str(manifest)]) == 0
    assert Counter(record.split for record in SceneIndex(manifest)) == splits


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_of_a_page_exist(page: str) -> None:
    folder = ROOT if page == "README.md" else ROOT / "docs"
    linked = {folder / link for link in re.findall(r"\]\(([\w./-]+)\)", PAGES[page])}
    named = {ROOT / path for path in re.findall(r"`((?:pipeline|tests|workflow|slurm|envs)/[\w./-]+)`", PAGES[page])}
    assert {str(path) for path in linked | named if not path.exists() and not path.stem.startswith("my_")} == set()


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_a_page_can_be_read(page: str) -> None:
    """Tables apart: their rows cannot be broken."""
    lines = [line for line in PAGES[page].splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > COLUMNS] == []
