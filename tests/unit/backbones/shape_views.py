"""A prepared dataset of flat pictures with one coloured shape each: enough to learn colours and shapes in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from box_rooms import write_scene
from PIL import Image, ImageDraw

from pipeline.scenes.index import SceneIndex, write_index
from pipeline.scenes.types import Scene, SceneRecord

COLORS = {"red": (210, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 220), "white": (245, 245, 245)}
SIZE = (96, 128)


def _picture(random: np.random.Generator) -> tuple[Image.Image, str, str]:
    color, shape = str(random.choice(list(COLORS))), str(random.choice(["box", "ball"]))
    image = Image.new("RGB", (SIZE[1], SIZE[0]), (120, 110, 100))
    x, y, half = random.integers(30, 98), random.integers(30, 66), random.integers(14, 26)
    draw = ImageDraw.Draw(image)
    corners = [int(x - half), int(y - half), int(x + half), int(y + half)]
    (draw.rectangle if shape == "box" else draw.ellipse)(corners, fill=COLORS[color])
    return image, color, shape


def write_shapes(folder: Path, *, scenes: int = 20, views: int = 2, dataset: str = "shapes") -> SceneIndex:
    """Scenes of single-shape views with view questions and a few captions."""
    random = np.random.default_rng(5)
    records, questions, captions = [], [], []
    for number in range(scenes):
        scene_id = f"shape{number:03d}"
        frames, pictures = tuple(f"{view:05d}" for view in range(views)), []
        for frame in frames:
            image, color, shape = _picture(random)
            pictures.append(np.asarray(image))
            place = {"scene_id": scene_id, "frame_id": frame}
            questions.append({**place, "question": "What color is it?", "answers": [color], "kind": "color"})
            questions.append({**place, "question": "What shape is it?", "answers": [shape], "kind": "shape"})
            captions.append({"scene_id": scene_id, "description": f"there is one {color} {shape} in this picture ."})
        poses, camera, depth_m = np.stack([np.eye(4)] * views), np.eye(3), np.ones((views, *SIZE), np.float32)
        record = SceneRecord(scene_id, "train", frames, poses, camera, camera, SIZE, SIZE, (), None, "")
        records.append(write_scene(folder / "posed_images", Scene(record, np.stack(pictures), depth_m)))
    (folder / "view_qa.json").write_text(json.dumps(questions), encoding="utf-8")
    (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")
    files = {"view_qa": {"train": ["view_qa.json"]}, "scan2cap": {"train": ["captions.json"]}}
    write_index(folder, records, dataset=dataset, root="posed_images", annotations=files, spec="")
    return SceneIndex(folder / "manifest.json")
