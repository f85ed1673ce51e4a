"""The recipe model: defaults, refusals, documentation."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.errors import ConfigError
from pipeline.options import validate
from pipeline.training.recipe import Recipe


def test_every_field_is_documented() -> None:
    assert [name for name, field in Recipe.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1}, "either `steps` or `epochs`"),
        ({"steps": None}, "either `steps` or `epochs`"),
        ({"layers": [-1, -1]}, "a layer twice"),
        ({"layers": []}, "layers"),
        ({"train_on": ["scanqa", "scanqa"]}, "a benchmark twice"),
        ({"wieght": 1}, "did you mean 'weight'"),
        ({"precision": "float16"}, "precision"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_wrong_recipes_are_refused_with_a_reason(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Recipe, options, where="config.yaml: recipes.mine")


def test_steps_from_epochs() -> None:
    recipe = Recipe(steps=None, epochs=1, questions_per_scene=1, scenes_per_step=16)
    assert recipe.total_steps(223_128) == 13_946, "the paper's number of steps"
    assert Recipe(steps=7).total_steps(10**6) == 7


def test_importing_the_recipe_is_light() -> None:
    code = "import sys, pipeline.training.recipe; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
