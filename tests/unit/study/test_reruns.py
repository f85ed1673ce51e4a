"""The rerun promise: an edit of the package changes the specifications of those jobs whose results it may change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
BACKBONES = ("qwen2_5_vl_tiny", "llava_onevision_tiny", "internvl_tiny")
NETWORKS = ("vggt_rooms", "random", "pi3", "flare")
TEACHERS = (*NETWORKS, "geometry", "shuffled")


def jobs(*commands: str) -> set[str]:
    """All jobs of these commands."""
    cells = {"prepare": ("rooms", "rooms_pretrain"), "pretrain_teacher": ("vggt_rooms",), "extract": TEACHERS}
    whole = {"summary", "report"} & set(commands)
    return whole | {f"{c} {cell}" for c in commands if c not in whole for cell in cells.get(c, BACKBONES)}


RUNS = jobs("train", "predict", "score")
READ_SCENES = jobs("prepare", "pretrain_teacher", "pretrain_backbone", "extract", "report") | RUNS
FIRST_OF = '''def first_of(names: Sequence[str]) -> str:
    """The first few names, and dots where there are more."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
'''
EDITS: dict[str, tuple[tuple[str, str, str], set[str]]] = {
    "a network": (("teachers/pi3/trunk.py", "def patch_tokens(self, images", "def patch_tokens(self, other"), {"extract pi3"}),
    "a shared network": (
        ("teachers/network.py", "    reads_depth = False\n", "    reads_depth = True\n"),
        {"pretrain_teacher vggt_rooms", *(f"extract {name}" for name in NETWORKS)},
    ),
    "a teacher": (("teachers/geometry.py", "FLOOR_BELOW_M = ", "FLOOR_BELOW_M = 2 * "), {"extract geometry"}),
    "a control": (("teachers/shuffled.py", "class ShuffledTeacher(", "@some\nclass ShuffledTeacher("), {"extract shuffled"}),
    "base class of teachers": (
        ("teachers/base.py", "return lambda: features", "return lambda: 0 * features"),
        jobs("extract", "pretrain_teacher"),
    ),
    "base class of datasets": (("datasets/base.py", "return digest(whole)", "return digest([whole])"), jobs("prepare")),
    "base class of benchmarks": (
        ("benchmarks/base.py", 'return self.samples(index, "train")', 'return self.samples(index, "val")'),
        jobs("pretrain_backbone", "report") | RUNS,
    ),
    "base class of backbones": (
        ("backbones/base.py", "self.model.save_pretrained(private)", "self.model.save_pretrained(private / 'x')"),
        jobs("pretrain_backbone", "train", "predict"),
    ),
    "seeds": (
        ("core/provenance.py", '"big") >> 1', '"big") >> 2'),
        jobs("prepare", "pretrain_teacher", "pretrain_backbone", "extract", "cell", "summary") | RUNS,
    ),
    "unit of depth": (("scenes/conventions.py", "DEPTH_UNIT_PER_M = 1000", "DEPTH_UNIT_PER_M = 999"), READ_SCENES),
    "attention mask": (("training/attention.py", "-torch.inf", "-1e4"), jobs("train", "predict")),
    "a model": (
        ("backbones/internvl/model.py", "class InternVLBackbone(", "@some\nclass InternVLBackbone("),
        {f"{command} internvl_tiny" for command in ("pretrain_backbone", "train", "predict")},
    ),
    "a score": (("benchmarks/scanrefer.py", "reached >= t)", "reached > t)"), jobs("score")),
    "a metric": (("metrics/captions.py", "_BETA = ", "_BETA = 2 * "), jobs("score")),
    "an answer": (("benchmarks/scanrefer.py", "[:-1].argmax()", "[:-1].argmin()"), jobs("predict", "score")),
    "a question": (("benchmarks/sqa3d.py", "situation.strip()", "situation"), jobs("report") | RUNS),
    "reading of scenes": (("scenes/index.py", "if not right:", "if right is None:"), READ_SCENES),
    "writing of scenes": (("scenes/index.py", "    os.sync()", "    os.sync() or os.sync()"), jobs("prepare")),
    "writing of features": (
        ("features/writer.py", "    def close(self) -> None:\n", "    def close(self) -> None:\n        del self.x\n"),
        jobs("extract"),
    ),
    "an optimizer": (
        ("optim/optimizer.py", "def schedule_factor(step: int", "def schedule_factor(step: float"),
        jobs("pretrain_teacher", "pretrain_backbone", "train") | {"extract vggt_rooms"},
    ),
    "a cell's table": (("tables/aggregate.py", "", "\n_MORE = 1\n"), jobs("cell", "summary")),
    "the table's text": (("tables/markdown.py", "", "\n_MORE = 1\n"), jobs("summary", "report")),
    "the page": (("report/html.py", "", "\n_MORE = 1\n"), jobs("report")),
    "a value that nobody imports": (("scenes/types.py", "", "\nMORE = 1\n"), READ_SCENES | jobs("cell", "summary")),
    "doctor": (("doctor/cost.py", "", "\n_MORE = 1\n"), set()),
    "text of an error": (("scenes/index.py", "are damaged: they are not", "are other files: not"), set()),
    "description of an option": (("study/recipe.py", '"Weight of the alignment loss', '"Weight of the loss'), set()),
    "a comment": (("core/provenance.py", "", "\n# a remark\n"), set()),
    "a docstring": (("teachers/base.py", '"""Return name -> width of', '"""Return width by name of'), set()),
    "time and memory of a job": (
        ("core/provenance.py", "time.perf_counter() - start, 3", "time.perf_counter() - start, 4"),
        set(),
    ),
}
"""Name -> (file, old text, new text), jobs."""
MOVE = [
    ("core/notes.py", FIRST_OF, "from pipeline.scenes.grid import first_of\n"),
    ("scenes/grid.py", "", "\n\nfrom collections.abc import Sequence\nfrom pipeline.core.notes import SHOWN\n" + FIRST_OF),
]
"""A function goes to another module."""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Name of an edit -> jobs whose specification it changes, in a copy of the package."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    content = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    content["teachers"] |= {name: {"size": "tiny_untrained"} for name in ("pi3", "flare")}
    (folder / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/reruns.py"), str(folder / "config.yaml")],
        input=json.dumps({name: [edit] for name, (edit, _) in EDITS.items()} | {"moved": MOVE}),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_reruns(changed: dict[str, list[str]], edit: str) -> None:
    assert set(changed[edit]) == EDITS[edit][1]


def test_code_that_only_moves_reruns_nothing(changed: dict[str, list[str]]) -> None:
    assert changed["moved"] == []
