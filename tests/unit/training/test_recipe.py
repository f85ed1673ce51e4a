"""The recipe model: defaults, refusals, documentation."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.core.errors import ConfigError
from pipeline.core.options import validate
from pipeline.scenes.types import Sample
from pipeline.study.recipe import Recipe
from pipeline.training.sampler import QuestionSampler


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


def test_an_epoch_of_samples_asks_every_question_once() -> None:
    """Scenes of 9 questions at 8 a visit need 2 visits each; 9 / 8 of a visit left 3 in 8 of the samples out."""
    made = {f"s{i}": [Sample(f"s{i}|{n}", f"s{i}", "scanqa", "qa", text="?", answer="a") for n in range(9)] for i in range(4)}
    recipe = Recipe(steps=None, epochs=1, balance="samples", questions_per_scene=8, scenes_per_step=2)
    sampler = QuestionSampler(
        {"scanqa": [s for found in made.values() for s in found]},
        dataset="d", seed=0, scenes_per_step=2, questions_per_scene=8, balance=recipe.balance,
    )  # fmt: skip
    asked = [s.sample_id for n in range(recipe.total_steps(36, sampler.visits)) for v in sampler.plan(n) for s in v.samples]
    assert sorted(asked) == sorted(s.sample_id for found in made.values() for s in found)
    assert recipe.total_steps(36) * 2 < 8, "the least number of visits is not enough"


def test_importing_the_recipe_is_light() -> None:
    code = "import sys, pipeline.study.recipe; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
