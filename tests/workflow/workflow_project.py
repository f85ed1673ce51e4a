"""Running Snakemake in a copy of the project, and reading what it says it would do."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ("config.yaml", "workflow/studies/smoke.yaml")
NOTHING = "Nothing to be done"
TOOLS = {"check", "schema", "doctor", "features", "bench", "submission"}
"""Commands that people call, not rules."""

_JOB = re.compile(r"^Job \d+: (\w+(?: (?:teacher|backbone))?) +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Project:
    """A copy of the project in ``folder``."""

    folder: Path

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder with this interpreter's programs first; stderr goes to stdout."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SNAKEMAKE_PROFILE")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**inherited, "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} gave exit code {done.returncode}:\n{done.stdout[-6000:]}")
        return done

    def snakemake(self, *arguments: str, check: bool = True, **environment: str) -> str:
        """What Snakemake prints."""
        return self.run("snakemake", *arguments, check=check, **environment).stdout

    def planned(self, *arguments: str, **environment: str) -> set[tuple[str, str]]:
        """(command, cell) of every job that a dry run would start, as the rules' messages name them."""
        text = self.snakemake(*arguments, "--dry-run", **environment)
        jobs = {(command.replace(" ", "_"), cell.strip()) for command, cell in _JOB.findall(text)}
        assert jobs or NOTHING in text, text
        return jobs

    def files(self, below: str = "results") -> dict[str, tuple[int, str]]:
        """Time stamp (ns) and digest of every result file except logs and resource records."""
        found = {}
        for path in sorted((self.folder / below).rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_file() and not name.startswith(("results/logs/", "results/benchmarks/")):
                found[name] = (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        return found

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace one place of a file."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} comes {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new), encoding="utf-8")
