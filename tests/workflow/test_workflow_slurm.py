"""`snakemake --profile slurm` with a stub of Slurm: what every rule asks the cluster for, and that its jobs can run."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from workflow_project import ROOT, SMOKE, TOOLS, Project

STUB = Path(__file__).parent / "stub_slurm"
ONE_CELL = "study: {teachers: [vggt_rooms], backbones: [internvl_tiny], seeds: [0]}\n"
PRETEND = '''
"""Stands in for the package's command line: every output of the command is made, empty."""

import sys
from pathlib import Path

for file in sys.argv[sys.argv.index("--out") + 1 :]:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).touch()
    Path(file).with_suffix(".md").touch()
print("--gpus", sys.argv[sys.argv.index("--gpus") + 1])
'''


def _options(arguments: list[str]) -> dict[str, str]:
    """The part of an sbatch command line that is about resources, by option name."""
    found: dict[str, str] = {}
    for name, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if name in ("-p", "-t", "--mem", "--comment"):
            found[name] = value
        elif match := re.fullmatch(r"(--[a-z-]+)=(.*)", name, re.DOTALL):
            found[match[1]] = match[2]
    return found


def _wanted(rule: str) -> dict[str, str]:
    """What the profile says a rule asks for, as sbatch options."""
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text(encoding="utf-8"))
    resources = {**profile["default-resources"], **profile["set-resources"].get(rule, {})}
    threads = profile["set-threads"].get(rule, 1)
    wanted = {
        "-p": resources["slurm_partition"],
        "-t": str(resources["runtime"]),
        "--mem": str(resources["mem_mb"]),
        "--cpus-per-task": str(threads),
    }
    return wanted | ({"--gpus": str(resources["gpu"])} if resources["gpu"] else {})


@pytest.mark.slow
def test_every_rule_asks_for_its_resources_and_runs(fresh: Project, tmp_path: Path) -> None:
    state = tmp_path / "slurm"
    state.mkdir()
    (fresh.folder / "pipeline/__main__.py").write_text(PRETEND, encoding="utf-8")
    (fresh.folder / "one_cell.yaml").write_text(ONE_CELL, encoding="utf-8")
    fresh.snakemake(
        *("--profile", "slurm", "--configfile", *SMOKE, "one_cell.yaml"),
        *("--slurm-init-seconds-before-status-checks", "1", "--max-status-checks-per-second", "10", "--latency-wait", "5"),
        PATH=os.pathsep.join([str(STUB), str(Path(sys.executable).parent), os.environ["PATH"]]),
        STUB_SLURM_DIR=str(state),
    )
    calls = [_options(json.loads(line)) for line in (state / "calls.jsonl").read_text().splitlines()]
    asked: dict[str, dict[str, str]] = {}
    for call in calls:
        rule = re.sub(r"^rule_|_wildcards_.*$", "", call["--comment"])
        asked[rule] = {name: call[name] for name in ("-p", "-t", "--mem", "--cpus-per-task", "--gpus") if name in call}
    rules = {path.stem for path in (ROOT / "pipeline/commands").glob("[a-z]*.py")} - TOOLS
    assert asked.keys() == rules
    assert asked == {rule: _wanted(rule) for rule in rules}
    assert {path.read_text() for path in state.glob("*.state")} == {"COMPLETED"}
    assert (fresh.folder / "results/tables/summary.parquet").is_file()
    log = fresh.folder / "results/logs/train/rooms/internvl_tiny/vggt_rooms/3drs/seed0.log"
    assert log.read_text().strip() == "--gpus 1", "the job must be told the GPUs that the profile asks for"


def test_the_profile_names_rules_that_exist() -> None:
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text(encoding="utf-8"))
    rules = {path.stem for path in (ROOT / "pipeline/commands").glob("[a-z]*.py")}
    assert profile["set-resources"].keys() | profile["set-threads"].keys() <= rules
    assert profile["executor"] == "slurm"
    assert profile["retries"] > 0
    text = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "workflow/rules").glob("*.smk"))
    assert "retries" not in text, "retries in a rule multiply through the Snakemakes inside a Slurm job"
