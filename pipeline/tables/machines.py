"""Where a run was made: two machines give other last digits, and fine-tuning lets them grow to points of a score.

The machine stands in each run's run.json, which no rule depends on: it may be missing, or come from an older version. What it
says goes into the rows (``machines``) and, when rows differ, into the summary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.tables.schema import Row

BASELINE = "none"
_DECIDING = ("python", "torch", "transformers", "numpy")


def machine_of(records: Sequence[Path]) -> str:
    """Return hardware and versions from one run's run.json files (training, answering); both where they differ, "" for none."""
    found = dict.fromkeys(_label(content) for path in records if (content := _read(path)))
    return " / ".join(label for label in found if label)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _label(content: Mapping[str, Any]) -> str:
    machine, versions = content.get("machine"), content.get("versions")
    parts = [str(value) for value in machine.values() if value] if isinstance(machine, dict) else []
    if isinstance(versions, dict):
        parts += [f"{name} {versions[name]}" for name in _DECIDING if versions.get(name)]
    return ", ".join(parts)


def machine_notes(rows: Sequence[Row]) -> list[str]:
    """Return what a reader must know of the rows' machines: nothing when all come from one, else which come from which."""
    cells: dict[str, dict[str, None]] = {}
    for row in rows:
        for name in row["machines"]:
            cells.setdefault(name, {})[f"{row['dataset']}/{row['backbone']}"] = None
    if len(cells) < 2:
        return []
    lines = [
        f"Rows come from {len(cells)} machines or library versions: where compared runs were not made on the same one, their "
        "difference holds what the machine changes too."
    ]
    lines += [f"{name or 'not known'}: {', '.join(found)}" for name, found in cells.items()]
    apart = _apart(rows)
    if apart:
        lines.append(f"Compared with a `{BASELINE}` of another machine: {', '.join(apart)}")
    return lines


def _apart(rows: Sequence[Row]) -> list[str]:
    """Return the runs whose baseline of the same seed was made elsewhere."""
    made = {
        (row["dataset"], row["backbone"], row["recipe"], row["teacher"], seed): machine
        for row in rows
        for seed, machine in zip(row["seeds"], row["machines"], strict=True)
    }
    return [
        f"{dataset}/{backbone}/{teacher}/{recipe}/seed{seed}"
        for (dataset, backbone, recipe, teacher, seed), machine in made.items()
        if made.get((dataset, backbone, recipe, BASELINE, seed), machine) != machine
    ]
