"""Floating-point operations of teachers and multimodal models, to an order of magnitude (multiply-add = 2).

A pass over N tokens costs 2 x parameters x N for the matrix products, and for attention

    teacher   a transformer has 12 x layers x width^2 parameters, so attention adds the share N / (6 x width) of the products;
              where all views of a scene are seen at once, half of the blocks do so and half look at single views
    decoder   2 x layers x width x N^2 (causal: half of all pairs)

Checked: VGGT-1B on 32 views of 392 x 518 is 199 TFLOP by these formulas with all of its 1.257 G parameters, and 176 when the
operations of the aggregator alone are counted one by one. 3DRS on LLaVA-Video-7B (13,946 steps of 16 questions, 6,720 visual
tokens) is 262 GPU hours at 125 TFLOP/s; the same training without alignment is reported as 32 h on 8 A100
(github.com/LaVi-Lab/Video-3D-LLM, issue 1).
"""

from __future__ import annotations

from pipeline.backbones.base import ModelSize
from pipeline.study.recipe import Recipe

TEXT_TOKENS = 100
"""Tokens of a question with its answer."""


def hours(flops: float, tflops: float) -> float:
    """Return the hours of one GPU that sustains ``tflops`` TFLOP/s."""
    return flops / (tflops * 1e12) / 3600


def teacher(parameters: int, width: int, views: float, tokens_per_view: int, *, together: bool) -> float:
    """Return the FLOPs of one scene's features. ``together``: a view's features depend on the other views."""
    tokens = views * tokens_per_view
    seen = (tokens + tokens_per_view) / 2 if together else tokens_per_view
    return 2.0 * parameters * tokens * (1 + seen / (6 * width))


def decoder(size: ModelSize, tokens: float) -> float:
    """Return the FLOPs of one forward pass of the language model over one sequence."""
    return 2.0 * size.language * tokens + 2.0 * size.layers * size.width * tokens**2


def vision(size: ModelSize, views: float) -> float:
    """Return the FLOPs of one forward pass of the vision tower over single views."""
    patches = size.patches * views
    return 2.0 * size.vision * patches


def training_step(size: ModelSize, views: float, recipe: Recipe) -> float:
    """Return the FLOPs of an optimizer step: ``scenes_per_step`` scenes, each with its questions behind one visual prefix."""
    passes = 4 if recipe.gradient_checkpointing else 3
    sequence = views * size.tokens + recipe.questions_per_scene * TEXT_TOKENS
    tower = passes if recipe.vision_learning_rate > 0 else 1
    return recipe.scenes_per_step * (passes * decoder(size, sequence) + tower * vision(size, views))


def answering(size: ModelSize, scenes: int, views: float, questions: int) -> float:
    """Return the FLOPs of evaluation: each scene's views once, then all questions behind them."""
    prefix = views * size.tokens
    per_token = 2.0 * size.language + 4.0 * size.layers * size.width * prefix
    return scenes * (decoder(size, prefix) + vision(size, views)) + questions * TEXT_TOKENS * per_token
