"""The built-in rooms are byte-identical to what they were before their tools were opened to 3D-FRONT (commit 87c6057).

The digests were taken of that commit's output. A change of rooms on purpose changes them on purpose: put the new ones here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline import registry

OPTIONS = {"train": 12, "val": 4, "test": 6, "views": 4, "width_px": 64, "height_px": 48}
BEFORE: dict[str, tuple[int, str]] = {
    ".jpg": (88, "c464797e9a5986d9"),
    ".json": (22, "c0e8f3ea050238a0"),
    ".png": (88, "acc815bd89ab3db6"),
    ".txt": (132, "01edd4bbc74a2813"),
    "annotations": (16, "f4cb45cabfef68e1"),
}


def digests(folder: Path) -> dict[str, tuple[int, str]]:
    """Number of files and digest per kind of file; markers without the digest of the options, which may get further keys."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.parent == folder or "vsibench" in name:
            continue
        data = path.read_bytes()
        if path.name == "room.json":
            data = json.dumps(json.loads(data) | {"spec": ""}, sort_keys=True).encode()
        kind = "annotations" if name.startswith("annotations") else path.suffix
        groups.setdefault(kind, []).append((name, hashlib.sha256(data).hexdigest()))
    return {kind: (len(g), hashlib.sha256(json.dumps(g).encode()).hexdigest()[:16]) for kind, g in groups.items()}


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    folder = tmp_path_factory.mktemp("rooms")
    registry.create("datasets", {"name": "rooms", "kind": "rooms", "options": OPTIONS}).prepare(folder, threads=1)
    return digests(folder)


@pytest.mark.parametrize("kind", sorted(BEFORE))
def test_rooms_are_what_they_were(now: dict[str, tuple[int, str]], kind: str) -> None:
    assert now[kind] == BEFORE[kind]
