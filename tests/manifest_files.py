"""Changed manifests for tests: somebody may write a wrong one with a right digest, so what is in it is checked too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core.provenance import write_manifest


def change_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest's content in place and give it the digest of what it says now."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("manifest_digest", None)
    change(content)
    write_manifest(path, content)
