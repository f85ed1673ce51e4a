"""Whether the package that jobs run is the one whose code the workflow took its digests of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.core.errors import EnvironmentFaultError


def refuse_another_checkout(project: Path) -> None:
    """EnvironmentFaultError where ``python -m pipeline`` in the working folder runs other code than that of ``project``.

    In the project's own folder Python takes the package that lies there. Elsewhere (``snakemake --directory``) it takes the
    installed one, which may be another checkout's: results would carry the digest of code that did not make them.
    """
    if Path.cwd() == project:
        return
    program = "import importlib.util as u; s = u.find_spec('pipeline'); print(s.origin if s else '')"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stdout.strip()
    if not found or Path(found).resolve().parents[1] != project.resolve():
        raise EnvironmentFaultError(
            "jobs would not run this project's code",
            where=f"the working folder is {Path.cwd()}, where Python finds {found or 'no package `pipeline`'}",
            fix=f"{sys.executable} -m pip install --no-deps -e {project}",
        )
