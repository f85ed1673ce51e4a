"""The training recipe: every setting of a fine-tuning run except dataset, backbone, teacher and seed. Light: no torch.

Source of the paper's values: 3DRS (NeurIPS 2025), 3.2, and the released training script. Defaults are sized for
the built-in rooms and tiny models; ``workflow/studies`` holds recipes with the paper's values.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.core.options import Options

REFERENCE_OBJECT_FRACTION = 91 / 729
"""The reference pools an LLM cell of 27 x 27 pixels into an object when at least 91 of them lie in its box."""


class Recipe(Options):
    """Options of a fine-tuning: what is trained, on what, for how long, and how 3D alignment enters the loss."""

    layers: tuple[int, ...] = Field(
        (-1,),
        min_length=1,
        description="LLM layers aligned to the teacher: -1 after the final norm (paper), k > 0 the output of decoder layer k, "
        "-k for k > 1 the k-th last. Several layers: one projector each, the mean of their losses.",
    )
    teacher_layer: str | None = Field(
        None,
        description="Teacher layer to align with, where a store holds several side by side (`pipeline features inspect` names "
        "them); null: all of them as one vector (paper: one layer, the last).",
    )
    weight: float = Field(
        2.0, ge=0, description="Weight of the alignment loss 1 - cos; the paper's ||a-b||^2 at weight 1 equals 2.0."
    )
    resample: Literal["area", "adaptive"] = Field(
        "area",
        description="Teacher tokens to the student's cells: by exact overlap in the image, or adaptive_avg_pool2d (paper; "
        "where the teacher looks at another part of the image than the student, by overlap, which `train` says).",
    )
    confidence_weighting: bool = Field(
        False, description="Weight each token's alignment loss by the teacher's confidence, where it has one (paper: no)."
    )
    world_positions: bool = Field(
        True, description="Add avg-discrete-sin3d encodings of world coordinates to visual tokens (Video-3D-LLM, 3DRS: yes)."
    )
    world_position_scale: float = Field(
        1.0, gt=0, le=100, description="Factor of these encodings (paper: 1, that is entries of size 1 beside the tokens' own)."
    )
    temperature: float = Field(0.07, gt=0, le=10, description="Temperature of the grounding InfoNCE (paper: 0.07).")
    object_min_fraction: float = Field(
        REFERENCE_OBJECT_FRACTION,
        gt=0,
        le=1,
        description="Share of a visual cell's pixels that must lie in a box for the cell to be pooled into the object "
        "(reference: 91/729). A box that no cell fulfils takes the cells it touches.",
    )
    train_on: tuple[str, ...] = Field(
        ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"),
        min_length=1,
        description="Benchmarks whose training samples are mixed (paper: these five).",
    )
    balance: Literal["tasks", "samples"] = Field(
        "tasks",
        description="tasks: every visit of a scene takes equally many questions of every benchmark; samples: every training "
        "sample exactly once per epoch (paper).",
    )
    questions_per_scene: int = Field(
        12, ge=1, le=1024, description="Questions that share one visual prefix, Q. Same loss as separate samples; paper: 1."
    )
    scenes_per_step: int = Field(12, ge=1, le=4096, description="Scenes per optimizer step (paper: 16 samples a step).")
    scenes_per_pass: int | None = Field(
        None,
        ge=1,
        description="Scenes per forward and backward pass; null: all of a step. Bounds memory, nothing else (paper: 1).",
    )
    steps: int | None = Field(150, ge=1, description="Optimizer steps. Set to null to give `epochs` instead.")
    epochs: float | None = Field(
        None, gt=0, description="Passes over the training samples instead of `steps` (paper: 1); needs `steps: null`."
    )
    learning_rate: float = Field(2e-3, gt=0, lt=1, description="Peak rate of LLM and visual projector (paper: 1e-5).")
    vision_learning_rate: float = Field(
        0.0, ge=0, lt=1, description="Peak rate of the vision tower (paper: 2e-6); 0 freezes it."
    )
    head_learning_rate: float = Field(
        1e-3, gt=0, lt=1, description="Peak rate of alignment projectors and grounding head (paper: 1e-5)."
    )
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Share of steps with linearly rising rate; then half a cosine to 0 (paper: 0.03)."
    )
    weight_decay: float = Field(0.0, ge=0, lt=1, description="AdamW weight decay (paper: 0).")
    grad_clip: float = Field(1.0, gt=0, description="Largest gradient norm over all trained parameters (paper: 1.0).")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast of the model (paper); geometry and losses stay float32."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass (paper: yes).")
    checkpoint_every_steps: int = Field(
        2000, ge=1, description="Steps between checkpoints that a stopped run resumes from (paper: 2000)."
    )
    projector_multiple: int = Field(
        2, ge=1, le=16, description="Hidden width of the alignment projector in multiples of the LLM's width (paper: 2)."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either `steps` or `epochs` and set the other to null")
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("`layers` names a layer twice")
        if len(set(self.train_on)) != len(self.train_on):
            raise ValueError("`train_on` names a benchmark twice")
        return self

    def total_steps(self, samples: int, visits: int | None = None) -> int:
        """Optimizer steps of a run on ``samples`` training samples.

        ``visits``: visits of scenes in which every sample is asked once (sampler.py). Without it, their least number: a
        scene's last visit is seldom full, and a run of that many steps would leave samples out.
        """
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        least = samples / self.questions_per_scene
        return max(1, math.ceil((least if visits is None else visits) * self.epochs / self.scenes_per_step))
