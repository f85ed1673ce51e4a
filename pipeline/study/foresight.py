"""What a study would only fail at after hours, found in its configuration alone.

Nothing is read but config.json of checkpoints that are there, and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.benchmarks.base import RepresentationBenchmark
from pipeline.core import registry
from pipeline.core.errors import ConfigError
from pipeline.core.options import did_you_mean

if TYPE_CHECKING:
    from pipeline.study.config import StudyConfig
    from pipeline.teachers.base import Teacher


def check_study(config: StudyConfig) -> None:
    """ConfigError for the first thing that the study selects and that cannot come to an end."""
    teachers = _teachers(config)
    for name, teacher in teachers.items():
        try:
            teacher.check_options()
        except ConfigError as error:
            where = error.where or f"config.yaml: teachers.{name}"
            raise ConfigError(error.what, where=where, allowed=error.allowed, fix=error.fix) from None
    _check_layers(config)
    _check_parts(config, teachers)
    _check_tasks(config)
    if any(teacher.has_features for teacher in teachers.values()) and "train" not in config.features.splits:
        raise ConfigError(
            f"training reads features of the split train, and only {', '.join(config.features.splits)} would be extracted",
            where="config.yaml: features.splits",
            fix="leave it out, or name train among them",
        )


def _teachers(config: StudyConfig) -> dict[str, Teacher]:
    """The study's teachers; a derived one stands for its source."""
    made = {name: registry.create("teachers", config.teachers[name]) for name in config.study["teachers"]}
    return {
        name: registry.create("teachers", config.teachers[teacher.source()]) if teacher.is_view else teacher
        for name, teacher in made.items()
    }


def _check_layers(config: StudyConfig) -> None:
    """Layers that recipes align and that benchmarks measure exist in every selected backbone whose depth is known."""
    asked = {f"recipes.{name}.layers": config.recipes[name].layers for name in config.study["recipes"]}
    for name in config.study["benchmarks"]:
        benchmark = registry.create("benchmarks", config.benchmarks[name])
        if isinstance(benchmark, RepresentationBenchmark):
            asked[f"benchmarks.{name}.layer"] = (benchmark.layer,)
    for name in config.study["backbones"]:
        depth = registry.create("backbones", config.backbones[name]).depth()
        for place, layers in asked.items():
            wrong = [layer for layer in layers if depth is not None and abs(layer) > depth]
            if wrong:
                raise ConfigError(
                    f"the decoder of backbone {name!r} has {depth} layers and no layer {wrong[0]}",
                    where=f"config.yaml: {place}",
                    allowed=f"{-(depth or 0)} to {depth}; -1 is the last",
                )


def _check_parts(config: StudyConfig, teachers: dict[str, Teacher]) -> None:
    """The teacher layer that a recipe aligns to exists in every selected teacher."""
    for recipe in config.study["recipes"]:
        layer = config.recipes[recipe].teacher_layer
        for name, teacher in teachers.items() if layer is not None else ():
            known = teacher.layer_names() if teacher.has_features else None
            if known is not None and layer not in known:
                raise ConfigError(
                    f"the features of teacher {name!r} have no layer {layer!r}{did_you_mean(str(layer), known)}",
                    where=f"config.yaml: recipes.{recipe}.teacher_layer",
                    allowed=f"{', '.join(known)}; null for all of them together",
                )


def _check_tasks(config: StudyConfig) -> None:
    """Every benchmark that a recipe trains on has something to train on."""
    for recipe in config.study["recipes"]:
        names = config.recipes[recipe].train_on
        measured = [name for name in names if _only_measures(config, name)]
        if measured:
            raise ConfigError(
                f"{measured[0]!r} measures the model and has no training samples",
                where=f"config.yaml: recipes.{recipe}.train_on",
                allowed=_listed(name for name in config.benchmarks if not _only_measures(config, name)),
            )


def _only_measures(config: StudyConfig, benchmark: str) -> bool:
    kind = config.benchmarks[benchmark]["kind"]
    return issubclass(registry.member_class("benchmarks", kind), RepresentationBenchmark)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "(none defined)"
