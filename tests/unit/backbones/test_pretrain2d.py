"""2D pretraining: what is drawn, what is learned, resuming, the command's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from manifest_files import change_manifest
from shape_views import write_shapes

from pipeline.__main__ import main
from pipeline.core import registry
from pipeline.core.errors import AnnotationError
from pipeline.core.provenance import file_digest
from pipeline.scenes.index import SceneIndex
from pipeline.training.pretrain2d.run import pretrain
from pipeline.training.pretrain2d.scores import best_constant, by_kind
from pipeline.training.pretrain2d.views import View, ViewQuestion, ViewSampler, hold_out, read_views

OPTIONS = {
    "dataset": "shapes",
    "steps": 30,
    "views_per_step": 16,
    "questions_per_view": 2,
    "texts_per_step": 4,
    "vocabulary": 400,
}


def _member(kind: str = "internvl", **changes: Any) -> Any:
    options = {"pretrain": {**OPTIONS, **changes}}
    return registry.create("backbones", {"name": kind, "kind": kind, "options": options})


def test_last_scenes_are_held_out_whole(shapes: SceneIndex) -> None:
    views = read_views(shapes)
    kept, held = hold_out(views, 0.1)
    assert len(views) == 40
    assert {v.scene_id for v in held} == {"shape018", "shape019"}
    assert len(kept) == 36
    with pytest.raises(AnnotationError, match="two scenes"):
        hold_out(views[:2], 0.1)


def test_draws_depend_on_seed_and_step_only(shapes: SceneIndex) -> None:
    views = read_views(shapes)

    def sampler(seed: int) -> ViewSampler:
        return ViewSampler(views, views_per_step=10, questions_per_view=1, seed=seed)

    one = sampler(0)
    early = [one.draw(step) for step in range(6)]
    assert sampler(0).draw(5) == early[5]
    assert sampler(1).draw(5) != early[5]
    first_pass = [(v.scene_id, v.frame_id) for draw in early[:4] for v in draw.views]
    assert len(set(first_pass)) == len(views), "a pass sees every view once"
    assert all(len(q) == 1 for draw in early for q in draw.questions)


def test_views_with_sided_questions_are_never_mirrored() -> None:
    sided = View("s", "f", (ViewQuestion("What is on the left?", ("chair",), "object"),))
    plain = View("s", "g", (ViewQuestion("What is it?", ("chair",), "object"),))
    sampler = ViewSampler([sided, plain], views_per_step=2, questions_per_view=1, seed=0)
    mirrored = {v.frame_id: 0 for v in (sided, plain)}
    for step in range(40):
        draw = sampler.draw(step)
        for view, mirror in zip(draw.views, draw.mirrored, strict=True):
            mirrored[view.frame_id] += mirror
    assert mirrored["f"] == 0
    assert 5 < mirrored["g"] < 35


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"frame_id": "99999"}, "not prepared"),
        ({"answers": []}, "no answers"),
        ({"question": None, "kind": None}, "lacks"),
        ({"question": "what? " * 1000}, "more than 4,000 bytes of text"),
    ],
)
def test_faulty_questions_are_named(tmp_path: Path, fault: dict[str, Any], message: str) -> None:
    index = write_shapes(tmp_path, scenes=2)
    path = tmp_path / "view_qa.json"
    content = json.loads(path.read_text())
    content[1] |= fault
    content[1] = {k: v for k, v in content[1].items() if v is not None}
    path.write_text(json.dumps(content))
    change_manifest(index.path, lambda content: content["annotation_files"].update({path.name: file_digest(path)}))
    index = SceneIndex(index.path)
    with pytest.raises(AnnotationError, match=message):
        read_views(index)


def test_scores_by_hand() -> None:
    questions = [
        ViewQuestion("?", ("red",), "color"),
        ViewQuestion("?", ("red", "pink"), "color"),
        ViewQuestion("?", ("2",), "count"),
    ]
    assert best_constant(questions) == pytest.approx(2 / 3)
    found = by_kind(questions, ["blue", "Pink ", "2"])
    assert found["color"] == {"accuracy": 0.5, "best_constant": 1.0, "n": 2}
    assert found["count"] == {"accuracy": 1.0, "best_constant": 1.0, "n": 1}


def test_colours_are_learned_in_seconds(shapes: SceneIndex, tmp_path: Path) -> None:
    figures = pretrain(_member(steps=50, held_out=0.25), shapes, tmp_path, digest="d", device="cpu")
    color = figures["held_out"]["color"]
    assert color["accuracy"] >= 0.9 > color["best_constant"]
    assert figures["loss"][-1]["answers"] < 0.5 * figures["loss"][0]["answers"]
    assert color["n"] == 10
    assert figures["loss"][-1]["language"] < figures["loss"][0]["language"]
    again = registry.create("backbones", {"name": "x", "kind": "internvl", "options": {"checkpoint": str(tmp_path)}})
    assert again.load(tmp_path, device="cpu").num_layers == 3


def test_the_verb_writes_its_files_and_refuses_other_scenes(
    shapes: SceneIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = {"name": "tiny", "kind": "llava_onevision", "options": {"pretrain": {**OPTIONS, "steps": 2}}}
    out = tmp_path / "results" / "manifest.json"
    arguments = ["pretrain_backbone", "--scenes", str(shapes.path), "--out", str(out)]
    assert main([*arguments, "--spec", json.dumps({"backbone": backbone, "code": ""})]) == 0
    manifest = json.loads(out.read_text())
    assert set(manifest["held_out"]) == {"color", "shape"}
    assert (out.parent / "model.safetensors").is_file()
    assert json.loads((out.parent / "metrics.json").read_text())["loss"]
    assert json.loads((out.parent / "run.json").read_text())["wall_s"] > 0
    assert "best_constant" not in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(shapes.folder, other)
    change_manifest(other / "manifest.json", lambda content: content.update(dataset="others"))
    arguments[2] = str(other / "manifest.json")
    assert main([*arguments, "--spec", json.dumps({"backbone": backbone, "code": ""})]) == 2
    assert "others" in capsys.readouterr().err
