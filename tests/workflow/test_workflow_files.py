"""The project's own files agree with each other: rules and commands, pins, environments, README."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from doc_dag import dag_text
from workflow_project import ROOT, TOOLS, Project

from pipeline.__main__ import commands
from pipeline.study.config import read_config

RULES = {
    name: body
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}
STEPS: dict[str, tuple[str, ...]] = {
    "prepare": ("datasets",),
    "pretrain_teacher": ("teachers",),
    "extract": ("teachers",),
    "pretrain_backbone": ("backbones",),
    "train": ("backbones", "benchmarks"),
    "predict": ("backbones", "benchmarks"),
    "score": ("benchmarks",),
    "cell": (),
    "summary": (),
    "report": (),
}
"""Commands with the folders of members that they create."""
NEVER_CALLED = {"prepare": {"torch"}, "score": {"torch"}}
"""grid.py imports torch in functions on tensors, which neither the preparation of scenes nor the scoring of answers calls."""
PACKAGE_OF = {"PIL": "pillow", "yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _pins(lines: Iterable[str]) -> dict[str, str]:
    found = (re.fullmatch(r"\s*([\w.-]+)==(\S+)\s*", line) for line in lines)
    return {m[1].lower().replace("_", "-"): m[2] for m in found if m}


def _constraints() -> dict[str, str]:
    return _pins((ROOT / "envs/constraints.txt").read_text(encoding="utf-8").splitlines())


def _environment(name: str) -> dict[str, str]:
    content = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text(encoding="utf-8"))
    return _pins(content["dependencies"][-1]["pip"])


def test_rules_are_the_verbs() -> None:
    assert set(RULES) == set(commands()) - TOOLS == set(STEPS)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_says_everything(rule: str) -> None:
    body = RULES[rule]
    for part in ("output", "log", "benchmark", "threads", "resources", "message", "conda", "params", "shell"):
        assert re.search(rf"^    {part}:", body, re.MULTILINE), part
    assert f"python -m pipeline {rule} " in body
    assert f'"results/logs/{rule}/' in body
    assert all(f"{resource}=" in body for resource in ("mem_mb", "runtime", "gpu"))
    assert "lambda" not in body
    inputs = re.search(r"^    input:\n((?:        .*\n)+)", body, re.MULTILINE)
    assert inputs is None or all("=" in line or line.startswith(" " * 9) for line in inputs[1].splitlines())


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda p: p.stem)
def test_environments_have_the_pins_of_the_constraints(path: Path) -> None:
    pins = _environment(path.stem)
    assert pins
    assert pins.items() <= _constraints().items()


def test_direct_dependencies_are_pinned_and_in_an_environment() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {name.lower() for name in project["dependencies"]}
    tools = {name.lower() for extra in project["optional-dependencies"].values() for name in extra}
    assert named | tools <= _constraints().keys()
    assert named == {name for path in (ROOT / "envs").glob("*.yaml") for name in _environment(path.stem)}


def _imported(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _third_party(command: str) -> set[str]:
    """Packages that a command may import, itself or through the package; metrics count for the commands that score."""
    start = [ROOT / f"pipeline/commands/{command}.py"]
    folders = [ROOT / "pipeline" / folder for folder in STEPS[command]]
    start += [path for folder in folders for name in ("*.py", "[!_]*/__init__.py") for path in folder.glob(name)]
    seen: set[Path] = set()
    found: set[str] = set()
    while start:
        path = start.pop()
        if path in seen or not path.is_file() or (path.parent.name == "metrics" and command in ("train", "predict")):
            continue
        seen.add(path)
        for name in _imported(path):
            top = name.split(".")[0]
            if top == "pipeline":
                base = ROOT.joinpath(*name.split("."))
                start += [base.with_suffix(".py"), base / "__init__.py"]
            elif top not in sys.stdlib_module_names:
                found.add(PACKAGE_OF.get(top, top).lower())
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_rules_environment_holds_what_its_verb_imports(rule: str) -> None:
    stage = re.search(r'"\.\./\.\./envs/(\w+)\.yaml"', RULES[rule])
    assert stage is not None
    assert _third_party(rule) - _environment(stage[1]).keys() == NEVER_CALLED.get(rule, set())


@pytest.mark.parametrize("path", sorted((ROOT / "workflow/studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_shipped_study_is_valid(path: Path) -> None:
    assert read_config([ROOT / "config.yaml", path]).study["teachers"][0] == "none"


def _commands() -> list[str]:
    """Commands of README: the lines of its ```sh blocks without remarks, continued ones as one."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_readme_shows_commands() -> None:
    assert {"make run", "make test", "snakemake --cores all results/tables/summary.parquet"} <= set(_commands())
    assert "snakemake --profile slurm" in _commands()


@pytest.mark.parametrize("command", [c for c in _commands() if c.startswith("make ")])
def test_a_make_target_of_readme_exists(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


WHOLE_STUDY = "snakemake --cores all"


def _plans() -> set[str]:
    """The Snakemake commands of README, those that only show the plan as well."""
    return {command.removesuffix(" -n") for command in _commands() if command.startswith("snakemake ")}


@pytest.mark.slow
def test_the_picture_of_the_workflow_is_what_snakemake_plans(untouched: Project) -> None:
    assert WHOLE_STUDY in _plans()
    (picture,) = re.findall(
        r"^```mermaid\n(.*?)\n```", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert picture == dag_text(untouched.snakemake(*WHOLE_STUDY.split()[1:], "--rulegraph", "dot")), "python tests/doc_dag.py"


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(_plans() - {WHOLE_STUDY}))
def test_a_snakemake_command_of_readme_plans_jobs(untouched: Project, command: str) -> None:
    arguments = command.split()[1:]
    if "--profile" in arguments:
        arguments += ["--executor", "local", "--cores", "2"]
    assert "Job stats" in untouched.snakemake(*arguments, "--dry-run") or "--unlock" in arguments


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["license"] == "Apache-2.0"
