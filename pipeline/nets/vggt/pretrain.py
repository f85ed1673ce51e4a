"""Making the small VGGT inside the workflow: masked images first (as VGGT stands on DINOv2), then depth, points and cameras."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import DataError
from pipeline.index import SceneIndex
from pipeline.nets.masked_images import MaskedImageModel
from pipeline.nets.training import Stages
from pipeline.nets.vggt.config import VGGTConfig
from pipeline.nets.vggt.figures import evaluate
from pipeline.nets.vggt.images import image_rule, to_input
from pipeline.nets.vggt.losses import total_loss
from pipeline.nets.vggt.matching import matching_loss
from pipeline.nets.vggt.model import VGGT
from pipeline.nets.vggt.targets import Batch, collate
from pipeline.nets.weights import initialise, save_weights
from pipeline.provenance import digest, seed_for
from pipeline.scene import Scene

HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 24
VIEW_COUNTS = (2, 3, 4, 6)
"""Views per scene in a step, drawn anew each time; the number of scenes makes up for it."""
MATCHING_WEIGHT = 0.5
DENSE_VIEWS = 2
"""Views per scene whose maps are predicted in a step: the convolutional heads cost more than everything before them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how: steps, images per step and peak learning rate of both stages, hidden share of patches, seed."""

    masked_steps: int
    masked_images: int
    masked_share: float
    masked_learning_rate: float
    steps: int
    images: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, slots=True)
class Material:
    """The scenes that are learned from, and how."""

    index: SceneIndex
    scene_ids: list[str]
    config: VGGTConfig
    plan: Plan
    device: str


def pretrain(index: SceneIndex, folder: Path, config: VGGTConfig, plan: Plan, device: str) -> dict[str, float]:
    """Train, write ``folder/model.safetensors`` and return figures on held-out scenes of the same dataset."""
    scene_ids = [record.scene_id for record in index]
    held = min(HELD_OUT_MOST, int(len(scene_ids) * HELD_OUT_SHARE))
    if len(scene_ids) - held < 2:
        raise DataError(f"a teacher cannot learn from {len(scene_ids)} scenes", where=str(index.path), allowed="2 or more")
    _one_grid(index, config)
    material = Material(index, scene_ids[: len(scene_ids) - held], config, plan, device)
    model = VGGT(config)
    initialise(model, plan.seed)
    model.to(device)
    key = digest([asdict(plan), asdict(config), index.digest, material.scene_ids, torch.__version__])
    stages = Stages(folder / "checkpoint.pt", key, model, device)
    losses = {"loss_masked": _masked_images(stages, model, material), "loss_geometry": _geometry(stages, model, material)}
    save_weights(folder / "model.safetensors", model.state_dict())
    figures = evaluate(model, index, scene_ids[len(scene_ids) - held :], device)
    stages.checkpoint.unlink(missing_ok=True)
    return {name: round(value, 4) for name, value in losses.items()} | figures | {"held_out_scenes": held}


def _one_grid(index: SceneIndex, config: VGGTConfig) -> None:
    """DataError unless all scenes can stand in one batch."""
    sizes = {image_rule(*record.image_size, config).grid: record for record in index}
    if len(sizes) > 1:
        found = ", ".join(f"{r.image_size[0]}x{r.image_size[1]} ({r.scene_id})" for r in sizes.values())
        raise DataError(
            f"a teacher cannot learn from images of several shapes: {found}",
            where=str(index.path),
            allowed="images of one size",
            fix="name a dataset of one image size in the teacher's pretrain: {dataset: ...}, such as the built-in rooms",
        )


def _masked_images(stages: Stages, model: VGGT, material: Material) -> float:
    """Stage 1: the patch encoder alone, on single views."""
    plan, config, device, aggregator = material.plan, material.config, material.device, model.aggregator
    masked = MaskedImageModel(aggregator.patch_embed, config)
    initialise(nn.ModuleList([masked.into, masked.place, masked.block, masked.pixels]), plan.seed)
    masked.to(device)

    def images(step: int) -> Tensor:
        random = np.random.default_rng(seed_for(plan.seed, "masked", step))
        chosen = random.choice(len(material.scene_ids), size=plan.masked_images)
        return torch.cat([_one_image(material, int(scene), random) for scene in chosen])

    def loss(batch: Tensor, step: int) -> Tensor:
        batch = (batch.to(device) - aggregator.mean) / aggregator.std
        patches = (batch.shape[-2] // config.patch) * (batch.shape[-1] // config.patch)
        generator = torch.Generator().manual_seed(seed_for(plan.seed, "order", step))
        order = torch.rand(len(batch), patches, generator=generator).argsort(dim=1).to(device)
        return masked(batch, order, max(1, round(patches * (1 - plan.masked_share))))

    return stages.run(
        "masked images", masked, steps=plan.masked_steps, peak=plan.masked_learning_rate, make=images, loss_of=loss
    )


def _one_image(material: Material, scene: int, random: np.random.Generator) -> Tensor:
    """One random view (1,3,H,W), mirrored half of the time."""
    record = material.index.records[material.scene_ids[scene]]
    frame = record.frame_ids[int(random.integers(len(record.frame_ids)))]
    rgb = material.index.color(record.scene_id, frame)
    return to_input(rgb[None, :, ::-1] if random.random() < 0.5 else rgb[None], material.config)


def _geometry(stages: Stages, model: VGGT, material: Material) -> float:
    """Stage 2: the whole network on depth, points and cameras of a few random views of each scene."""
    plan, index, scene_ids = material.plan, material.index, material.scene_ids
    fewest = min(len(index.records[scene].frame_ids) for scene in scene_ids)
    counts = [count for count in VIEW_COUNTS if count <= fewest] or [fewest]

    def batch(step: int) -> Batch:
        random = np.random.default_rng(seed_for(plan.seed, "geometry", step))
        views = int(random.choice(counts))
        chosen = random.permutation(len(scene_ids))[: max(1, plan.images // views)]
        scenes = [_some_views(index, scene_ids[int(scene)], views, random) for scene in chosen]
        return collate(scenes, material.config)

    def loss(batch: Batch, step: int) -> Tensor:
        batch = batch.to(material.device)
        views = batch.images.shape[1]
        dense = np.random.default_rng(seed_for(plan.seed, "dense", step)).permutation(views)[:DENSE_VIEWS].tolist()
        prediction = model(batch.images, dense)
        grid = (batch.images.shape[-2] // material.config.patch, batch.images.shape[-1] // material.config.patch)
        matching = matching_loss(prediction.tokens, batch, grid)
        return total_loss(prediction, batch.maps_of(dense))["loss"] + MATCHING_WEIGHT * matching

    return stages.run("geometry", model, steps=plan.steps, peak=plan.learning_rate, make=batch, loss_of=loss)


def _some_views(index: SceneIndex, scene_id: str, count: int, random: np.random.Generator) -> Scene:
    """``count`` random views of a scene, forwards or backwards along its path; only their files are read."""
    record = index.records[scene_id]
    order = np.sort(random.permutation(len(record.frame_ids))[:count])[:: random.choice([1, -1])]
    return index.load(scene_id, frame_ids=[record.frame_ids[view] for view in order])
