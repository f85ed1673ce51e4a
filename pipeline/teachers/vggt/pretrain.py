"""Making the small VGGT inside the workflow: masked images first (as VGGT stands on DINOv2), then depth, points and cameras."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.errors import DataError
from pipeline.core.provenance import digest, seed_for
from pipeline.core.weights import initialise, save_weights
from pipeline.optim.checkpoint import Checkpoints
from pipeline.optim.loop import Loop, StepLosses, final_means
from pipeline.optim.optimizer import decay_groups, schedule_factor, set_rates
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Scene
from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.evaluate import evaluate
from pipeline.teachers.vggt.images import image_rule, to_input
from pipeline.teachers.vggt.losses import total_loss
from pipeline.teachers.vggt.masked_images import MaskedImageModel
from pipeline.teachers.vggt.matching import matching_loss
from pipeline.teachers.vggt.model import VGGT
from pipeline.teachers.vggt.targets import Batch, collate

CHECKPOINT_EVERY = 100
WEIGHT_DECAY = 0.05
HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 24
VIEW_COUNTS = (2, 3, 4, 6)
"""Views per scene in a step, drawn anew each time; the number of scenes makes up for it."""
MATCHING_WEIGHT = 0.5
DENSE_VIEWS = 2
"""Views per scene whose maps are predicted in a step: the convolutional heads cost more than everything before them."""


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Plan:
    """A pretraining's plan: steps, images per step and peak learning rate of both stages, hidden share of patches, seed."""

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
    """The scenes that are learned from, and how. ``key``: digest of all that decides the weights."""

    index: SceneIndex
    scene_ids: list[str]
    config: VGGTConfig
    plan: Plan
    device: str
    key: str
    folder: Path


def pretrain(index: SceneIndex, folder: Path, config: VGGTConfig, plan: Plan, device: str) -> dict[str, float]:
    """Train, write ``folder/model.safetensors`` and return figures on held-out scenes of the same dataset."""
    scene_ids = [record.scene_id for record in index]
    held = min(HELD_OUT_MOST, int(len(scene_ids) * HELD_OUT_SHARE))
    if len(scene_ids) - held < 2:
        raise DataError(f"a teacher cannot learn from {len(scene_ids)} scenes", where=str(index.path), allowed="2 or more")
    _one_grid(index, config)
    learned = scene_ids[: len(scene_ids) - held]
    key = digest([asdict(plan), asdict(config), index.digest, learned])
    material = Material(index, learned, config, plan, device, key, folder / "checkpoints")
    model = VGGT(config)
    initialise(model, plan.seed)
    model.to(device)
    masked, geometry = (final_means(stage(model, material).run()) for stage in (MaskedImages, Geometry))
    save_weights(folder / "model.safetensors", model.state_dict())
    figures = evaluate(model, index, scene_ids[len(scene_ids) - held :], device)
    shutil.rmtree(material.folder)
    losses = {"loss_masked": masked.get("loss", 0.0), "loss_geometry": geometry["loss"]}
    return losses | figures | {"held_out_scenes": held}


def _one_grid(index: SceneIndex, config: VGGTConfig) -> None:
    """Raise DataError unless all scenes fit into one batch."""
    sizes = {image_rule(*record.image_size, config).grid: record for record in index}
    if len(sizes) > 1:
        found = ", ".join(f"{r.image_size[0]}x{r.image_size[1]} ({r.scene_id})" for r in sizes.values())
        raise DataError(
            f"a teacher cannot learn from images of several shapes: {found}",
            where=str(index.path),
            allowed="images of one size",
            fix="name a dataset of one image size in the teacher's pretrain: {dataset: ...}, such as the built-in rooms",
        )


class Stage(Loop[Item]):
    """One stage of the training, with an optimizer and checkpoints of its own.

    A finished stage keeps its last checkpoint until all are finished, so a run that was stopped in the second one does not
    repeat the first.
    """

    not_finite_fix = "lower masked_learning_rate or learning_rate of the teacher's pretrain"
    memory_fix = "fewer at once: masked_images or images of the teacher's pretrain"

    def __init__(self, module: nn.Module, material: Material, *, steps: int, peak: float):
        self.material = material
        groups = decay_groups("all", module.parameters(), peak, WEIGHT_DECAY)
        optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))
        checkpoints = Checkpoints(material.folder / self.label.replace(" ", "_"), material.key)
        super().__init__(module, optimizer, checkpoints, steps=steps, save_every=CHECKPOINT_EVERY)

    def set_rates(self, step: int) -> None:
        """Warm up over 5 % of the steps, then follow half a cosine."""
        set_rates(self.optimizer, schedule_factor(step, self.steps, max(1, self.steps // 20)))


class MaskedImages(Stage[Tensor]):
    """Stage 1: the patch encoder alone, on single views."""

    label = "pretrain masked images"

    def __init__(self, model: VGGT, material: Material):
        self.aggregator, plan = model.aggregator, material.plan
        masked = MaskedImageModel(model.aggregator.patch_embed, material.config)
        initialise(nn.ModuleList([masked.into, masked.place, masked.block, masked.pixels]), plan.seed)
        masked.to(material.device)
        super().__init__(masked, material, steps=plan.masked_steps, peak=plan.masked_learning_rate)

    def batch(self, step: int) -> Tensor:
        """Draw views (masked_images,3,H,W)."""
        plan = self.material.plan
        random = np.random.default_rng(seed_for(plan.seed, "masked", step))
        chosen = random.choice(len(self.material.scene_ids), size=plan.masked_images)
        return torch.cat([_one_image(self.material, int(scene), random) for scene in chosen])

    def backward(self, step: int, batch: Tensor) -> StepLosses:
        """Predict the pixels of hidden patches."""
        plan, device, patch = self.material.plan, self.material.device, self.material.config.patch
        batch = (batch.to(device) - self.aggregator.mean) / self.aggregator.std
        patches = (batch.shape[-2] // patch) * (batch.shape[-1] // patch)
        generator = torch.Generator().manual_seed(seed_for(plan.seed, "order", step))
        order = torch.rand(len(batch), patches, generator=generator).argsort(dim=1).to(device)
        loss: Tensor = self.module(batch, order, max(1, round(patches * (1 - plan.masked_share))))
        loss.backward()
        return {"loss": loss.item()}


def _one_image(material: Material, scene: int, random: np.random.Generator) -> Tensor:
    """Return one random view (1,3,H,W), mirrored half of the time."""
    record = material.index.records[material.scene_ids[scene]]
    frame = record.frame_ids[int(random.integers(len(record.frame_ids)))]
    rgb = material.index.color(record.scene_id, frame)
    return to_input(rgb[None, :, ::-1] if random.random() < 0.5 else rgb[None], material.config)


class Geometry(Stage[Batch]):
    """Stage 2: the whole network on depth, points and cameras of a few random views of each scene."""

    label = "pretrain geometry"

    def __init__(self, model: VGGT, material: Material):
        fewest = min(len(material.index.records[scene].frame_ids) for scene in material.scene_ids)
        self.counts = [count for count in VIEW_COUNTS if count <= fewest] or [fewest]
        super().__init__(model, material, steps=material.plan.steps, peak=material.plan.learning_rate)

    def batch(self, step: int) -> Batch:
        """Draw scenes of equally many views."""
        material, plan = self.material, self.material.plan
        random = np.random.default_rng(seed_for(plan.seed, "geometry", step))
        views = int(random.choice(self.counts))
        chosen = random.permutation(len(material.scene_ids))[: max(1, plan.images // views)]
        scenes = [_some_views(material.index, material.scene_ids[int(scene)], views, random) for scene in chosen]
        return collate(scenes, material.config)

    def backward(self, step: int, batch: Batch) -> StepLosses:
        """Compare predicted depth, points, cameras and matches with the scenes' own."""
        batch, patch = batch.to(self.material.device), self.material.config.patch
        views = batch.images.shape[1]
        random = np.random.default_rng(seed_for(self.material.plan.seed, "dense", step))
        dense = random.permutation(views)[:DENSE_VIEWS].tolist()
        prediction = self.module(batch.images, dense)
        matching = matching_loss(prediction.tokens, batch, (batch.images.shape[-2] // patch, batch.images.shape[-1] // patch))
        loss = total_loss(prediction, batch.maps_of(dense))["loss"] + MATCHING_WEIGHT * matching
        loss.backward()
        return {"loss": loss.item()}


def _some_views(index: SceneIndex, scene_id: str, count: int, random: np.random.Generator) -> Scene:
    """Load ``count`` random views of a scene, forwards or backwards along its path; only their files are read."""
    record = index.records[scene_id]
    order = np.sort(random.permutation(len(record.frame_ids))[:count])[:: random.choice([1, -1])]
    return index.load(scene_id, frame_ids=[record.frame_ids[view] for view in order])
