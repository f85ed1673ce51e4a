"""Sections of the report from optional inputs: notes on the data, training curves, example scenes, teacher features.

Each returns a function that adds its section to a page; without inputs the section is one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.core.errors import DataError
from pipeline.features.store import FeatureReader
from pipeline.metrics.boxes import iou
from pipeline.report import figures, pictures
from pipeline.report.inputs import ExampleScene, Question, Said, example_scenes, feature_paths, run_path, training_curves
from pipeline.report.page import Page, Picture
from pipeline.scenes.index import SceneIndex

Section = Callable[[Page], None]
MAX_TEXT = 260


def data_section(indices: Sequence[SceneIndex]) -> Section:
    """Return what was left out of the datasets or is doubtful: all notes of their manifests."""

    def add(page: Page) -> None:
        page.section("data", "Data: what was left out or is doubtful")
        body = [
            ([index.dataset if first else "", note.line()], first)
            for index in indices
            for first, note in ((number == 0, note) for number, note in enumerate(index.notes))
        ]
        names = ", ".join(f"`{index.dataset}`" for index in indices)
        if body:
            page.table(["dataset", "what"], body, left=2)
        elif indices:
            page.paragraph(f"Nothing was left out of {names}, and nothing there is doubtful.", "note")
        else:
            page.paragraph("No scenes were given (`--scenes`), so nothing is known of the data.", "note")

    return add


def curves_section(runs: Sequence[Path]) -> Section:
    """Build the section of training curves from run manifests, one figure per dataset and recipe."""

    def add(page: Page) -> None:
        page.section("training", "Training")
        named = [run_path(path) for path in runs]
        drawn = 0
        for dataset, recipe in dict.fromkeys((run.dataset, run.recipe) for run in named):
            curves = training_curves([run for run in named if (run.dataset, run.recipe) == (dataset, recipe)])
            if not curves:
                continue
            caption = (
                f"{dataset}, recipe {recipe}: loss per question of every benchmark trained on, and the alignment loss "
                "(1 − cosine) of "
                "runs with a teacher. Running means over 6 % of the steps, one line per run, controls dashed."
            )
            png = figures.training_curves(curves)
            page.figure(Picture(f"training_{dataset}_{recipe}", png, "training curves", caption))
            drawn += 1
        if not drawn:
            page.paragraph("Left out: no run with training metrics was given (`--runs`).", "note")

    return add


def examples_section(
    indices: Sequence[SceneIndex], predictions: Sequence[Path], benchmarks: Mapping[str, Mapping[str, Any]], split: str
) -> Section:
    """Build the section of examples: a few test scenes with views, questions and every teacher's answers."""

    def add(page: Page) -> None:
        page.section("examples", "Example scenes")
        runs = [run_path(path) for path in predictions]
        examples = [(index, scene) for index in indices for scene in example_scenes(index, runs, benchmarks, split)]
        if not examples:
            page.paragraph("Left out: no predictions with their scenes were given (`--predictions`, `--scenes`).", "note")
            return
        first = examples[0][1]
        page.paragraph(
            f"Scenes evenly spaced over the split `{split}`, the first question of every benchmark: not chosen by result. Runs "
            f"of `{first.backbone}`, recipe `{first.recipe}`, seed {first.seed}. In the right picture the target box is white "
            "and the answers are dashed in the teachers' colours. ✓: among the expected answers; for boxes, every box on a "
            "target and every target hit at IoU 0.25."
        )
        for index, scene in examples:
            _example(page, index, scene)

    return add


def _example(page: Page, index: SceneIndex, scene: ExampleScene) -> None:
    page.subsection(f"{scene.dataset} / {scene.scene_id}")
    grounded = next((question for question in scene.questions if question.targets), None)
    teachers = list(dict.fromkeys(teacher for question in scene.questions for teacher in question.said))
    png = pictures.scene_strip(index.load(scene.scene_id), grounded, teachers)
    caption = "" if grounded is None else f"Right: {grounded.benchmark}, “{_short(grounded.text)}”."
    page.figure(Picture(f"scene_{scene.dataset}_{scene.scene_id}", png, f"views of {scene.scene_id}", caption))
    body = []
    for question in scene.questions:
        cells = [_answer(question, question.said.get(teacher)) for teacher in teachers]
        body.append(([question.benchmark, _short(question.text), _expected(question), *cells], False))
    colors = figures.teacher_colors(teachers)
    name = Markup('<i class="dot" style="background:{}"></i>{}')
    names = [name.format(colors[teacher], teacher) for teacher in teachers]
    header = ["benchmark", "question", "expected", *names]
    page.table(header, body, left=len(header))


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1].rsplit(" ", 1)[0] + " …"


def _expected(question: Question) -> str:
    if question.task == "grounding":
        count = len(question.targets)
        return "no object" if not count else f"{count} object{'s' if count > 1 else ''}"
    return _short(" / ".join(dict.fromkeys(question.expected[:3])))


def _answer(question: Question, said: Said | None) -> str:
    """Format a prediction as a cell, ticked when right (one of the references; every box on a target and every target hit)."""
    if said is None:
        return "–"
    if question.task != "grounding":
        right = question.task == "qa" and said.answer.strip().lower() in {text.strip().lower() for text in question.expected}
        return _judged(_short(said.answer) or "(nothing)", right)
    if not said.parsed:
        return "(nothing)"
    if not said.boxes or not question.targets:
        right = not said.boxes and not question.targets
        text = "no object" if not said.boxes else f"{len(said.boxes)} boxes"
        return _judged(text, right)
    overlaps = iou(said.boxes, question.targets)
    hits = overlaps >= 0.25
    boxes = f"{len(said.boxes)} boxes, " if len(said.boxes) > 1 else ""
    return _judged(f"{boxes}IoU\N{NO-BREAK SPACE}{overlaps.max():.2f}", bool(hits.any(axis=0).all() and hits.any(axis=1).all()))


def _judged(text: str, right: bool) -> str:
    return Markup('<span class="right">✓ {}</span>').format(text) if right else text


def features_section(indices: Sequence[SceneIndex], manifests: Sequence[Path]) -> Section:
    """Build the section that shows every teacher's features of one scene as colours."""

    def add(page: Page) -> None:
        page.section("features", "What the teachers see")
        stores = feature_paths(manifests)
        drawn = [index.dataset for index in indices if _features_figure(page, index, stores)]
        if not drawn:
            page.paragraph("Left out: no teacher features with their scenes were given (`--features`, `--scenes`).", "note")

    return add


def _features_figure(page: Page, index: SceneIndex, stores: Mapping[tuple[str, str], list[Path]]) -> bool:
    readers = {teacher: FeatureReader(paths) for (dataset, teacher), paths in stores.items() if dataset == index.dataset}
    if not readers:
        return False
    common = set.intersection(*(set(reader.scene_ids) for reader in readers.values()))
    scene_id = next((record.scene_id for record in index if record.scene_id in common), None)
    if scene_id is None:
        raise DataError(
            f"the feature stores of {', '.join(readers)} have no scene of dataset {index.dataset!r} in common",
            where=str(index.path),
            fix="give all shards of every teacher to --features",
        )
    scene = index.load(scene_id)
    features = {name: reader.read(scene_id, scene.record.frame_ids) for name, reader in readers.items()}
    caption = (
        f"Scene {scene_id} of {index.dataset} (split {scene.record.split}): first three principal components of each "
        "teacher's features as "
        "red, green and blue. One basis and scale per teacher for all views: where two views see the same place, a "
        "teacher that knows "
        "geometry gives the same colour."
    )
    png = pictures.feature_grid(scene, features)
    page.figure(Picture(f"features_{index.dataset}", png, "teacher features as colours", caption))
    return True
