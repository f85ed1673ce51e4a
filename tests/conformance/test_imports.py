"""Finding a member imports its file alone: listing kinds and checking a configuration load no heavy package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from pipeline.core import registry
for interface in registry.INTERFACES:
    for kind in registry.member_files(interface):
        registry.member_class(interface, kind)
        heavy = {"torch", "transformers", "open3d", "zarr", "matplotlib"} & set(sys.modules)
        assert not heavy, f"{interface}/{kind} imports {heavy} at the top of its file"
"""


def test_member_files_import_nothing_heavy() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
