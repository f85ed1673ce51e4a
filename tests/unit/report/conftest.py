"""Makes the shared makers of test data importable: box-shaped rooms (tests/) and the made-up study (tests/unit/tables/)."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parents[2], Path(__file__).parents[1] / "tables"):
    sys.path.insert(0, str(folder))
