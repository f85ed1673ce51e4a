"""config.yaml as typed models: the single source of names, defaults and checks.

Definitions are mappings (``datasets``, ``teachers``, ``backbones``, ``recipes``, ``benchmarks``), the selection ``study``
is lists; a second ``--configfile`` deep-merges mappings and replaces lists, exactly as Snakemake does. ``kind`` defaults to
the key. Options of a member are checked by the member's own model, so adding a member is one file and one line of config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic.json_schema import models_json_schema

from pipeline.core import registry
from pipeline.core.errors import ConfigError
from pipeline.core.options import Options, validate
from pipeline.scenes.conventions import NAME_LONGEST, NAME_PATTERN, is_name
from pipeline.study.configfile import read_files
from pipeline.study.foresight import check_study
from pipeline.study.recipe import Recipe

Member = dict[str, Any]
"""A resolved entry: {"name": .., "kind": .., "options": {every option with its value}}."""


class StoredGrid(Options):
    """A student's token grid on which features are stored: area means of the teacher's cells, in image coordinates."""

    rows: int = Field(ge=1, le=256, description="Rows of cells.")
    cols: int = Field(ge=1, le=256, description="Columns of cells.")
    window: tuple[float, float, float, float] = Field(
        (0.0, 0.0, 1.0, 1.0), description="(x0, y0, x1, y1) of the image that the cells cover, 0 to 1 (default: all of it)."
    )

    @field_validator("window")
    @classmethod
    def _inside_the_image(cls, window: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = window
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ValueError("must be (x0, y0, x1, y1) with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
        return window


class FeatureOptions(Options):
    """Options: how teacher features are cached."""

    shards: int = Field(
        1, ge=1, le=4096, description="Shards per dataset x teacher; one extract job each, scenes by stable hash."
    )
    dtype: Literal["bfloat16", "float32", "int8"] = Field(
        "bfloat16",
        description="Stored number format. 1 - cosine that it costs a token: bfloat16 < 8e-6; int8 (per channel and view) "
        "about 5e-5, measured per scene, refused above 0.02.",
    )
    compression: Literal["none", "lossless"] = Field(
        "lossless",
        description="lossless: the same numbers in an eighth fewer bytes of bfloat16, packed by Blosc (bit shuffle, LZ4). "
        "none: read without a copy, straight from the disk's cache. Any Zarr v3 reader opens both.",
    )
    grid: Literal["native"] | StoredGrid = Field(
        "native",
        description="Grid of the stored features: the teacher's own, or {rows, cols} of a student (fewer bytes, but other "
        "students then get resampled features).",
    )
    splits: tuple[Literal["train", "val", "test"], ...] = Field(
        ("train",), min_length=1, description="Splits to extract. Evaluation never reads features, so train is enough."
    )


class EvaluationOptions(Options):
    """Options: how runs are scored and compared."""

    split: Literal["train", "val", "test"] = Field("test", description="Split that predict and score use.")
    bootstrap_replicates: int = Field(1000, ge=100, le=100_000, description="Resamples of scenes behind every interval.")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Level of every interval.")
    seed: int = Field(0, ge=0, description="Seed of the scene resampling.")


class Study(Options):
    """The selection. An omitted list means every key of the section."""

    datasets: tuple[str, ...] | None = Field(None, description="Datasets of the matrix.")
    teachers: tuple[str, ...] | None = Field(None, description="Teachers of the matrix; `none` is always added.")
    backbones: tuple[str, ...] | None = Field(None, description="Backbones of the matrix.")
    recipes: tuple[str, ...] | None = Field(None, description="Recipes of the matrix.")
    benchmarks: tuple[str, ...] | None = Field(None, description="Benchmarks that every run is scored on.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Training seeds; two or more give intervals over seeds.")


class ConfigFile(Options):
    """The top level of config.yaml."""

    datasets: dict[str, dict[str, Any] | None] = Field(min_length=1, description="Name -> dataset options.")
    teachers: dict[str, dict[str, Any] | None] = Field(default_factory=dict, description="Name -> teacher options.")
    backbones: dict[str, dict[str, Any] | None] = Field(min_length=1, description="Name -> backbone options.")
    recipes: dict[str, dict[str, Any] | None] = Field(min_length=1, description="Name -> training recipe.")
    benchmarks: dict[str, dict[str, Any] | None] = Field(min_length=1, description="Name -> benchmark options.")
    study: Study = Field(default_factory=Study, description="The selection that `rule all` makes.")
    features: FeatureOptions = Field(default_factory=FeatureOptions, description="The feature store.")
    evaluation: EvaluationOptions = Field(default_factory=EvaluationOptions, description="Scoring and intervals.")


class StudyConfig:
    """A checked configuration with every default filled in."""

    def __init__(self, content: Mapping[str, Any]):
        self.file = validate(ConfigFile, content, where="config.yaml")
        self.datasets = _members("datasets", self.file.datasets)
        self.teachers = _members("teachers", {"none": None, **self.file.teachers})
        self.backbones = _members("backbones", self.file.backbones)
        self.benchmarks = _members("benchmarks", self.file.benchmarks)
        self.recipes = {name: _recipe(name, options or {}) for name, options in self.file.recipes.items()}
        self.features, self.evaluation = self.file.features, self.file.evaluation
        self.study = self._selection()
        self._check_references()
        check_study(self)

    def _selection(self) -> dict[str, tuple[Any, ...]]:
        """The study's lists, complete: omitted lists filled in, `none` first among the teachers."""
        study = self.file.study
        chosen: dict[str, tuple[Any, ...]] = {}
        for section in ("datasets", "teachers", "backbones", "recipes", "benchmarks"):
            defined = getattr(self, section)
            names = getattr(study, section)
            if names is None:
                names = tuple(defined)
            for name in names:
                if name not in defined:
                    raise registry.unknown(section[:-1], name, defined, where=f"config.yaml: study.{section}")
            if not names:
                raise ConfigError("an empty list selects nothing", where=f"config.yaml: study.{section}")
            _refuse_duplicates(names, f"config.yaml: study.{section}")
            chosen[section] = tuple(names)
        chosen["teachers"] = ("none", *(t for t in chosen["teachers"] if t != "none"))
        _refuse_duplicates(study.seeds, "config.yaml: study.seeds")
        if min(study.seeds) < 0:
            raise ConfigError(f"a seed is negative: {min(study.seeds)}", where="config.yaml: study.seeds", allowed="0 or more")
        chosen["seeds"] = study.seeds
        return chosen

    def _check_references(self) -> None:
        """Names that one definition uses of another must exist."""
        for name, member in self.teachers.items():
            teacher = registry.create("teachers", member)
            self._check_pretrain("teachers", name, teacher.pretrain_dataset() if teacher.trained_in_workflow else None)
            if teacher.is_view:
                self._check_source(name, teacher.source())
        for name, member in self.backbones.items():
            self._check_pretrain("backbones", name, registry.create("backbones", member).pretrain_dataset())
        for name, recipe in self.recipes.items():
            for benchmark in recipe.train_on:
                if benchmark not in self.benchmarks:
                    where = f"config.yaml: recipes.{name}.train_on"
                    raise registry.unknown("benchmark", benchmark, self.benchmarks, where=where)

    def _check_pretrain(self, section: str, name: str, dataset: str | None) -> None:
        if dataset is not None and dataset not in self.datasets:
            raise registry.unknown("dataset", dataset, self.datasets, where=f"config.yaml: {section}.{name}.pretrain.dataset")

    def _check_source(self, name: str, source: str | None) -> None:
        where = f"config.yaml: teachers.{name}.of"
        if source is None or source not in self.teachers:
            raise registry.unknown("teacher", str(source), self.teachers, where=where)
        other = registry.create("teachers", self.teachers[source])
        if other.is_view or not other.has_features:
            raise ConfigError(f"{source!r} has no features of its own to derive from", where=where)


def _refuse_duplicates(values: Sequence[Any], where: str) -> None:
    twice = sorted({str(v) for v in values if list(values).count(v) > 1})
    if twice:
        raise ConfigError(f"named twice: {', '.join(twice)}", where=where)


def _checked_name(name: str, where: str) -> None:
    if not is_name(name):
        allowed = f"lower snake case ({NAME_PATTERN}), {NAME_LONGEST} characters at most"
        raise ConfigError(f"{name!r} is not a name", where=where, allowed=allowed)


def _members(interface: registry.Interface, entries: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Member]:
    """Entries resolved and checked by the members' own option models."""
    members: dict[str, Member] = {}
    for name, entry in entries.items():
        where = f"config.yaml: {interface}.{name}"
        _checked_name(name, where)
        options = dict(entry or {})
        kind = options.pop("kind", name)
        _check_kind(interface, name, kind, where)
        cls = registry.member_class(interface, kind, where=where)
        model = validate(cls.options_model, options, where=where)
        members[name] = {"name": name, "kind": kind, "options": model.model_dump(mode="json")}
    return members


def _check_kind(interface: registry.Interface, name: str, kind: object, where: str) -> None:
    """A kind is a name; the baseline `none`, which every difference is taken to, has no features whatever is defined."""
    if not isinstance(kind, str):
        raise ConfigError(
            f"the kind is {kind!r}, not a name", where=f"{where}.kind", allowed=", ".join(registry.member_files(interface))
        )
    if interface == "teachers" and name == "none" and kind != "none":
        raise ConfigError(
            f"`none` is the baseline without features and cannot be of kind {kind!r}",
            where=f"{where}.kind",
            fix="give this teacher another name",
        )


def _recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    _checked_recipe_name(name)
    return validate(Recipe, options, where=f"config.yaml: recipes.{name}")


def _checked_recipe_name(name: str) -> None:
    """Recipe names may start with a digit (`3drs`): they are path parts, never Python names."""
    if not is_name(f"r{name}"):
        raise ConfigError(
            f"{name!r} is not a name",
            where=f"config.yaml: recipes.{name}",
            allowed=f"[a-z0-9_]+, {NAME_LONGEST} characters at most",
        )


def json_schema() -> dict[str, Any]:
    """JSON schema of config.yaml: sections, study, recipes, and the options of every kind, those of plug-ins included."""
    kinds = {section: sorted(registry.member_files(section)) for section in registry.INTERFACES}
    options = {
        (section, kind): registry.member_class(section, kind).options_model for section in kinds for kind in kinds[section]
    }
    models = dict.fromkeys((ConfigFile, Recipe, *options.values()))  # a model that kinds share is written once
    refs, found = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    schema = found["$defs"].pop(refs[ConfigFile, "validation"]["$ref"].removeprefix("#/$defs/"))
    schema["$defs"] = found["$defs"]
    for model in set(options.values()):
        entry = schema["$defs"][refs[model, "validation"]["$ref"].removeprefix("#/$defs/")]
        entry.setdefault("properties", {})["kind"] = {"type": "string", "description": "The kind; default: the key."}
    sections = schema["properties"]
    sections["recipes"]["additionalProperties"] = {"anyOf": [refs[Recipe, "validation"], {"type": "null"}]}
    for section in kinds:
        chosen = {kind: refs[options[section, kind], "validation"] for kind in kinds[section]}
        schema["$defs"][section] = {
            "type": ["object", "null"],
            "properties": {"kind": {"type": "string", "examples": kinds[section]}},
            "allOf": [
                {"if": {"type": "object", "required": ["kind"], "properties": {"kind": {"const": kind}}}, "then": ref}
                for kind, ref in chosen.items()
            ],
        }
        member, unnamed = {"$ref": f"#/$defs/{section}"}, {"type": "object", "not": {"required": ["kind"]}}
        sections[section]["additionalProperties"] = member
        sections[section]["properties"] = {kind: {"if": unnamed, "then": ref, "else": member} for kind, ref in chosen.items()}
    return schema


def read_config(files: Sequence[Path]) -> StudyConfig:
    """Read and merge YAML files, the first being the base. ConfigError for faults of syntax or content."""
    return StudyConfig(read_files(files))
