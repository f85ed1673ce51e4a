"""Datasets: prepared, outdated, damaged or not; scenes, views, annotations and samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doctor_studies import built_in, write_config
from manifest_files import change_manifest

from pipeline.__main__ import main
from pipeline.core import registry
from pipeline.core.notes import Note
from pipeline.core.provenance import file_digest, read_manifest, write_manifest
from pipeline.datasets.base import Dataset, ScenePlan
from pipeline.doctor.scenes import Examined, _joined, examine_dataset
from pipeline.doctor.selection import select
from pipeline.scenes.index import SceneIndex, add_notes
from pipeline.study.config import StudyConfig
from pipeline.study.specs import Specs

Prepared = Callable[[StudyConfig], Path]
pytestmark = pytest.mark.usefixtures("project")
FAKE_DATASET = '''
"""Dataset of a test: needs a file of others and does not know its scenes before it is prepared."""

from pathlib import Path

from pipeline.datasets.base import Dataset, SourceFile


class FakeScans(Dataset):
    licence = "ask the authors"

    def source_files(self):
        return (SourceFile(Path("raw/scans.tar"), "the scans", "a form on the authors' page", 12_000_000_000),)

    def prepare(self, folder, *, threads):
        raise NotImplementedError
'''


def examined(content: dict[str, Any], name: str = "tiny_rooms") -> Examined:
    return examine_dataset(select(write_config(content)), name)


def test_not_prepared_says_what_will_be_made() -> None:
    found = examined(built_in())
    assert (found.row.state, found.row.licence) == ("not prepared", "Apache-2.0 (made here)")
    assert found.row.scenes == {"train": 6, "val": 2, "test": 3}
    assert found.row.views == {"train": 24, "val": 8, "test": 12}
    assert found.row.image_size == (96, 128)
    assert found.row.sources == ()
    assert found.needs == ()
    assert found.index is None


def test_prepared_counts_what_is_there(prepared: Prepared, tiny_rooms: SceneIndex) -> None:
    prepared(write_config(built_in()))
    found = examined(built_in())
    assert found.row.state == "prepared"
    assert found.row.scenes == {"train": 6, "val": 2, "test": 3}
    assert found.needs == ()
    assert found.row.annotations["scanqa"] == {"test": True, "train": True}
    assert "correspondence" not in found.row.annotations
    benchmark = registry.create("benchmarks", {"name": "scanqa", "kind": "scanqa", "options": {}})
    assert found.row.samples["scanqa"] == len(benchmark.samples(tiny_rooms, "test"))


def test_other_options_make_it_outdated(prepared: Prepared) -> None:
    prepared(write_config(built_in()))
    changed = built_in()
    changed["datasets"]["tiny_rooms"] |= {"train": 60, "views": 3}
    found = examined(changed)
    assert found.row.state == "outdated"
    assert found.row.scenes == {"train": 60, "val": 2, "test": 3}
    assert found.row.views == {"train": 180, "val": 6, "test": 9}
    assert found.row.samples == {}


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no digest of its own"), ({"schema": 1}, "no entry"), ({"schema": 99}, "schema 99")]
)
def test_a_damaged_manifest_is_a_need(content: dict[str, Any] | None, message: str, prepared: Prepared) -> None:
    folder = prepared(write_config(built_in()))
    if content is None:
        (folder / "manifest.json").write_text("{}")
    else:
        write_manifest(folder / "manifest.json", content)
    found = examined(built_in())
    assert found.row.state == "damaged"
    assert message in found.needs[0].what
    assert found.row.scenes is not None


def test_missing_annotations_are_needs(prepared: Prepared) -> None:
    folder = prepared(write_config(built_in()))
    path = folder / "manifest.json"
    manifest = read_manifest(path, made_by="")
    del manifest["annotations"]["scanqa"]["test"]
    gone = manifest["annotations"]["sqa3d"]["train"][0]
    (folder / gone).unlink()
    write_manifest(path, manifest)
    found = examined(built_in())
    assert found.row.annotations["scanqa"] == {"test": False, "train": True}
    assert found.row.annotations["sqa3d"] == {"test": True, "train": False}
    assert "scanqa" not in found.row.samples
    assert {need.what for need in found.needs} == {
        "tiny_rooms has no annotations of scanqa for split test",
        "tiny_rooms has no annotations of sqa3d for split train",
    }
    assert {Path(need.where).name for need in found.needs} == {"manifest.json", Path(gone).name}


def test_a_benchmark_that_nothing_reads_needs_no_annotations(prepared: Prepared) -> None:
    content = built_in(recipes={"qa": {"train_on": ["scanqa"]}}, study={"benchmarks": ["scanqa"]})
    folder = prepared(write_config(content))
    path = folder / "manifest.json"
    manifest = read_manifest(path, made_by="")
    write_manifest(path, manifest | {"annotations": {"scanqa": manifest["annotations"]["scanqa"]}})
    found = examined(content)
    assert found.needs == ()
    assert set(found.row.samples) == {"scanqa"}


def write_annotation(folder: Path, name: str, content: Any) -> None:
    """Other annotations, as if `prepare` had written them."""
    (folder / name).write_text(json.dumps(content))
    own = {name: file_digest(folder / name)}
    change_manifest(folder / "manifest.json", lambda manifest: manifest["annotation_files"].update(own))


def test_source_files_of_a_dataset(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "datasets").mkdir()
    (folder / "datasets" / "fake_scans.py").write_text(FAKE_DATASET, encoding="utf-8")
    monkeypatch.setenv("PIPELINE_PLUGINS", str(folder))
    content = built_in(datasets={"fake_scans": {}, "tiny_rooms": {"kind": "rooms"}}, study={"datasets": ["fake_scans"]})
    found = examined(content, "fake_scans")
    assert (found.row.state, found.row.scenes, found.extent) == ("not prepared", None, None)
    assert found.row.sources[0].state == "not there"
    assert found.row.sources[0].bytes == 12_000_000_000
    assert [(need.what, need.where) for need in found.needs] == [("fake_scans needs the scans", "raw/scans.tar")]
    Path("raw").mkdir()
    Path("raw/scans.tar").write_bytes(b"123")
    found = examined(content, "fake_scans")
    assert found.needs == ()
    assert (found.row.sources[0].state, found.row.sources[0].bytes) == ("complete", 3)


def test_malformed_training_annotations_are_needs(prepared: Prepared) -> None:
    folder = prepared(write_config(built_in()))
    manifest = json.loads((folder / "manifest.json").read_text())
    name = manifest["annotations"]["scanqa"]["train"][0]
    entries = json.loads((folder / name).read_text())
    write_annotation(folder, name, [entries[0] | {"scene_id": "nowhere"}, *entries[1:]])
    found = examined(built_in())
    assert [need.what[:20] for need in found.needs] == ["tiny_rooms, scanqa: "]
    assert "scanqa" in found.row.samples
    assert "scanqa" not in found.row.training
    assert "sqa3d" in found.row.training


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["a/b.json"], "a/b.json"),
        (["a/x_train.json", "a/x_val.json"], "a/x_{train, val}.json"),
        (["a/one", "a/other", "b/two"], "a/{one, other}, b/two"),
        (["a/x.json", "a/x.json.gz"], "a/x.{json, json.gz}"),
    ],
)
def test_missing_files_are_named_shortly(paths: list[str], text: str) -> None:
    assert _joined([Path(path) for path in paths]) == text


def test_published_numbers_stand_in_until_scannet_is_prepared() -> None:
    content = built_in(datasets={"scannet": {"scenes": "annotated"}, "tiny_rooms": {"kind": "rooms"}})
    content |= {"study": {"datasets": ["scannet"]}, "evaluation": {"split": "val"}}
    row = examined(content, "scannet").row
    assert sum(row.training.values()) == 223_128, "3DRS, appendix A.2"
    assert row.samples == {
        "scanrefer": 9_508, "multi3drefer": 11_120, "scan2cap": 2_068, "scanqa": 4_675, "sqa3d": 3_519, "correspondence": 141,
    }  # fmt: skip
    content["datasets"]["scannet"]["only"] = ["scene0000_00"]
    row = examined(content, "scannet").row
    assert (row.samples, row.training) == ({}, {})


def test_roles_and_selection() -> None:
    content = built_in(
        datasets={"tiny_rooms": {"kind": "rooms"}, "own": {"kind": "rooms"}, "unused": {"kind": "rooms"}},
        backbones={"internvl": {"pretrain": {"dataset": "own"}}, "qwen2_5_vl": {"pretrain": {"dataset": "own"}}},
        study={"datasets": ["tiny_rooms"], "backbones": ["internvl"]},
    )
    selection = select(write_config(content))
    assert selection.roles == {"tiny_rooms": "study", "own": "pretraining of internvl"}
    assert set(selection.datasets) == {"tiny_rooms", "own"}


@pytest.mark.parametrize("kind", sorted(registry.member_files("datasets")))
def test_every_dataset_states_its_licence(kind: str) -> None:
    cls = registry.member_class("datasets", kind)
    dataset: Dataset = registry.create("datasets", {"name": kind, "kind": kind, "options": dict(cls.example)})
    assert dataset.licence != Dataset.licence
    plan = dataset.planned()
    assert plan is None or (isinstance(plan, ScenePlan) and sum(plan.scenes.values()) > 0)
    assert all(file.source and file.what for file in dataset.source_files())


def test_what_the_verb_prepares_is_prepared() -> None:
    """The rooms are made by the command `prepare` with the workflow's own specification."""
    content = built_in(datasets={"tiny_rooms": {"kind": "rooms", "train": 1, "val": 0, "test": 1, "views": 2}})
    config = write_config(content)
    Path("spec.json").write_text(Specs(config).prepare("tiny_rooms"))
    assert main(["prepare", "--spec", "@spec.json", "--out", "results/scenes/tiny_rooms/manifest.json"]) == 0
    found = examined(content)
    assert (found.row.state, found.needs) == ("prepared", ())
    assert found.row.views == {"train": 2, "test": 2}


def test_notes_on_prepared_data_are_shown() -> None:
    content = built_in(datasets={"tiny_rooms": {"kind": "rooms", "train": 1, "val": 0, "test": 1, "views": 2}})
    Path("spec.json").write_text(Specs(write_config(content)).prepare("tiny_rooms"))
    manifest = Path("results/scenes/tiny_rooms/manifest.json")
    assert main(["prepare", "--spec", "@spec.json", "--out", str(manifest)]) == 0
    add_notes(manifest, [Note("frames_without_pose", "frames without a valid pose: left out", 3, out_of=18)])
    assert examined(content).row.notes == ("3 of 18 frames without a valid pose: left out",)


def test_what_preparing_will_not_make_is_told_before() -> None:
    """A folder without boxes and annotations, splits without a scene, and questions that are written on request only."""
    for folder in ("scans/one/color", "scans/one/depth"):
        Path(folder).mkdir(parents=True)
    content = built_in(datasets={"desk": {"kind": "posed_rgbd", "root": "scans"}, "tiny_rooms": {"kind": "rooms"}})
    content |= {"study": {"datasets": ["desk"], "benchmarks": ["scanqa", "correspondence"]}}
    content["recipes"] = {"qa": {"train_on": ["scanqa"]}}
    assert [need.what for need in examined(content, "desk").needs] == ["desk will have no annotations of scanqa (test, train)"]
    content = built_in(datasets={"tiny_rooms": {"kind": "rooms", "train": 0, "val": 2, "test": 0}})
    (need,) = examined(content).needs
    assert need.what == "tiny_rooms will have no scene of split test, train"
    assert need.fix.startswith("training reads the split train")


@pytest.mark.parametrize("kind", ["rooms", "front3d"])
def test_questions_on_request_are_asked_for(kind: str) -> None:
    content = built_in(datasets={"made": {"kind": kind}, "tiny_rooms": {"kind": "rooms"}}, study={"datasets": ["made"]})
    content["benchmarks"] = content["benchmarks"] | {"vsibench": {}}
    content["study"]["benchmarks"] = ["vsibench"]
    whats = [need.what for need in examined(content, "made").needs if "files" not in need.what]
    assert whats == ["made will have no annotations of vsibench (test)"]
    assert "vsibench_per_room" in examined(content, "made").needs[-1].fix
    content["datasets"]["made"]["vsibench_per_room"] = 10
    assert [need.what for need in examined(content, "made").needs if "files" not in need.what] == []


def test_scannet_will_annotate_what_its_options_name() -> None:
    content = built_in(datasets={"scannet": {"benchmarks": ["scanqa", "vsibench"]}, "tiny_rooms": {"kind": "rooms"}})
    dataset = select(write_config(content | {"study": {"datasets": ["scannet"]}})).datasets["scannet"]
    found = {(k, s) for k in ("scanqa", "vsibench", "sqa3d") for s in ("train", "val", "test") if dataset.annotates(k, s)}
    assert found == {("scanqa", "train"), ("scanqa", "val"), ("vsibench", "val")}
    content |= {"study": {"datasets": ["scannet"]}}
    assert "scannet will have no scene of split test" in {need.what for need in examined(content, "scannet").needs}


def test_sizes_of_what_is_to_be_got_are_said() -> None:
    for kind, options, sizes in (
        ("scannet", {}, ["about 1.2 TB"]),
        ("scannet", {"source": "posed_images"}, ["about 20 GB"]),
        ("front3d", {}, ["about 19 GB"]),
    ):
        content = built_in(datasets={"got": {"kind": kind, **options}, "tiny_rooms": {"kind": "rooms"}})
        content |= {"study": {"datasets": ["got"]}}
        said = " ".join(need.what for need in examined(content, "got").needs)
        assert [size for size in ("about 1.2 TB", "about 20 GB", "about 19 GB") if size in said] == sizes


def test_rooms_of_houses_are_an_estimate_and_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    content = built_in(datasets={"front3d": {"houses_max": 600}, "tiny_rooms": {"kind": "rooms"}})
    content |= {"study": {"datasets": ["front3d"]}}
    assert not examined(built_in()).row.about
    assert examined(content, "front3d").row.about  # writes study.yaml
    assert main(["doctor", "study.yaml"]) == 2
    assert "at most about train 1,420 scenes" in " ".join(capsys.readouterr().out.split())
