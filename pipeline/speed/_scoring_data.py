"""Made-up queries, answers and captions of realistic form and number: none of it comes from a model or a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.scenes.index import SceneIndex, write_index
from pipeline.scenes.types import Answer, Sample, SceneObject, SceneRecord

SCENES, OBJECTS = 141, 25
"""As ScanNet's validation scenes with descriptions, and about as many objects as one has."""
_WORDS = (
    "a the this is it there on of to in left right next near under above front behind side corner wall floor window door "
    "table desk chair sofa bed lamp cabinet shelf bookshelf box bin sink toilet counter curtain picture monitor backpack "
    "brown black white gray blue red green yellow wooden round square large small tall two three four one middle facing "
    "standing hanging placed located between against room kitchen bathroom office"
)
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True, slots=True)
class Job:
    """Samples of one benchmark with made-up answers."""

    samples: list[Sample]
    answers: list[Answer]


def made_up_index(folder: Path, rng: np.random.Generator) -> SceneIndex:
    """Return scenes with random boxes; the proposals are the boxes, slightly shifted, and as many random ones."""
    records = []
    for number in range(SCENES):
        boxes = np.concatenate([rng.uniform(-4, 4, (OBJECTS, 3)), rng.uniform(0.2, 2.5, (OBJECTS, 3))], axis=1)
        proposals = np.concatenate([_shifted(boxes, 0.1, rng), _shifted(boxes, 1.0, rng)])
        objects = tuple(SceneObject(i, str(rng.choice(WORDS[28:47])), _six(box)) for i, box in enumerate(boxes))
        eye, size = np.eye(3), (8, 8)
        pose = np.eye(4)[None]
        records.append(SceneRecord(f"made_up_{number:04d}", "val", ("0",), pose, eye, eye, size, size, objects, proposals, "0"))
    write_index(folder, records, dataset="made_up", root=".", annotations={}, spec="0")
    return SceneIndex(folder / "manifest.json")


def _shifted(boxes: NDArray[np.float64], spread: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return boxes + spread * rng.normal(size=boxes.shape) * np.array([1.0, 1, 1, 0, 0, 0])


def _six(box: Sequence[float]) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f = (float(v) for v in box)
    return a, b, c, d, e, f


def single_queries(index: SceneIndex, count: int, rng: np.random.Generator) -> Job:
    """Make ScanRefer-like queries, each answered with a scene proposal near its object, or a random one."""
    scenes = list(index)
    samples, answers = [], []
    for number in range(count):
        record, target = scenes[number % len(scenes)], int(rng.integers(OBJECTS))
        proposals = record.candidate_boxes()
        chosen = target if rng.random() < 0.6 else int(rng.integers(len(proposals)))
        subset = ("unique",) if rng.random() < 0.2 else ("multiple",)
        samples.append(_sample(f"{number}", record.scene_id, "scanrefer", target_ids=(target,), subsets=subset))
        answers.append(Answer(boxes=(tuple(proposals[chosen].tolist()),), scores=(0.5,)))
    return Job(samples, answers)


def multi_queries(index: SceneIndex, count: int, rng: np.random.Generator) -> Job:
    """Make Multi3DRefer-like queries: none, one or several targets and answers."""
    scenes = list(index)
    samples, answers = [], []
    kinds = {"zt_w_d": 0.1, "zt_wo_d": 0.1, "st_w_d": 0.4, "st_wo_d": 0.15, "mt": 0.25}
    for number in range(count):
        record = scenes[number % len(scenes)]
        kind = str(rng.choice(list(kinds), p=list(kinds.values())))
        wanted = {"z": 0, "s": 1, "m": int(rng.integers(2, 6))}[kind[0]]
        targets = [int(i) for i in rng.permutation(OBJECTS)[:wanted]]
        proposals = record.candidate_boxes()
        said = [i for i in targets if rng.random() < 0.7] + [int(i) for i in rng.integers(0, 50, int(rng.integers(0, 3)))]
        samples.append(_sample(f"{number}", record.scene_id, "multi3drefer", target_ids=tuple(targets), subsets=(kind,)))
        answers.append(Answer(boxes=tuple(tuple(proposals[i].tolist()) for i in said), scores=tuple(0.5 for _ in said)))
    return Job(samples, answers)


def questions(index: SceneIndex, count: int, rng: np.random.Generator) -> Job:
    """Make ScanQA-like questions with one to four short answers; four of ten are answered with one of them."""
    scenes = [record.scene_id for record in index]
    samples, answers = [], []
    for number in range(count):
        truth = tuple(_words(rng, 1, 5) for _ in range(int(rng.integers(1, 5))))
        said = truth[0] if rng.random() < 0.4 else _words(rng, 1, 5)
        asked = f"{rng.choice(['What', 'Where', 'How', 'Which', 'Is'])} {_words(rng, 3, 9)}?"
        samples.append(_sample(f"{number}", scenes[number % len(scenes)], "scanqa", text=asked, references=truth))
        answers.append(Answer(text=said))
    return Job(samples, answers)


def captions(index: SceneIndex, count: int, rng: np.random.Generator) -> Job:
    """Make Scan2Cap-like captions of objects with five descriptions; one of eight is gated."""
    scenes = [record.scene_id for record in index]
    samples, answers = [], []
    for number in range(count):
        truth = tuple(f"{_words(rng, 8, 16)}. {_words(rng, 5, 12)}." for _ in range(5))
        box = None if rng.random() < 0.125 else (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
        said = f"{truth[0].split('.')[0]}. {_words(rng, 5, 12)}." if rng.random() < 0.5 else f"{_words(rng, 10, 25)}."
        samples.append(_sample(f"{number}", scenes[number % len(scenes)], "scan2cap", references=truth, input_box=box))
        answers.append(Answer(text=said))
    return Job(samples, answers)


def _words(rng: np.random.Generator, fewest: int, most: int) -> str:
    return " ".join(str(w) for w in rng.choice(WORDS, int(rng.integers(fewest, most + 1))))


def _sample(name: str, scene: str, benchmark: str, **values: object) -> Sample:
    task = {"scanqa": "qa", "scan2cap": "caption"}.get(benchmark, "grounding")
    return Sample(name, scene, benchmark, task, **values)  # type: ignore[arg-type]
