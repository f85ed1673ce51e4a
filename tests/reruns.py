"""What runs again after an edit of the package: the specifications of a study before and after each of some edits.

    PYTHONPATH=COPY python tests/reruns.py CONFIG < edits

``COPY`` holds a copy of the package, which is changed and put right again. ``edits`` is JSON: name -> list of [file, old text,
new text]; without an old text the new one is added at the end. Prints JSON: name -> jobs whose specification changed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from pipeline.study.closure import PACKAGE
from pipeline.study.config import StudyConfig
from pipeline.study.specs import Specs


def all_specs(config: StudyConfig) -> dict[str, str]:
    """Job -> specification: one of every dataset, teacher, backbone and run (teacher `none`) of a configuration."""
    specs, found = Specs(config), {}
    for dataset in config.datasets:
        found[f"prepare {dataset}"] = specs.prepare(dataset)
    for teacher in config.teachers:
        if specs.teacher(teacher).trained_in_workflow:
            found[f"pretrain_teacher {teacher}"] = specs.pretrain_teacher(teacher)
        if specs.teacher(teacher).has_features:
            found[f"extract {teacher}"] = specs.extract("rooms", teacher, "shard0")
    for backbone in config.backbones:
        run = ("rooms", backbone, "none", "3drs", "0")
        found[f"pretrain_backbone {backbone}"] = specs.pretrain_backbone(backbone)
        found |= {f"{command} {backbone}": getattr(specs, command)(*run) for command in ("train", "predict", "score")}
        found[f"cell {backbone}"] = specs.cell("rooms", backbone)
    return found | {"summary": specs.summary(), "report": specs.report()}


def changed_by(config: StudyConfig, before: dict[str, str], edits: list[tuple[str, str, str]]) -> list[str]:
    """Jobs whose specification is another one than ``before`` after some edits, which are taken back."""
    texts = {file: (PACKAGE / file).read_text(encoding="utf-8") for file, _, _ in edits}
    for file, old, new in edits:
        text = texts[file]
        assert text.count(old) == 1 or not old, f"{old!r} comes {text.count(old)} times in {file}"
        (PACKAGE / file).write_text(text.replace(old, new) if old else text + new, encoding="utf-8")
    try:
        after = all_specs(config)
    finally:
        for file, text in texts.items():
            (PACKAGE / file).write_text(text, encoding="utf-8")
    assert before.keys() == after.keys()
    return [job for job in before if before[job] != after[job]]


def main(config: str) -> None:
    study = StudyConfig(yaml.safe_load(Path(config).read_text(encoding="utf-8")))
    before, edits = all_specs(study), json.load(sys.stdin)
    print(json.dumps({name: changed_by(study, before, found) for name, found in edits.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
