"""Teacher kind ``external``: a small package made for the test stands in for a model that a user has installed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from box_rooms import make_scene, write_dataset
from safetensors.torch import save_file

from pipeline.__main__ import main
from pipeline.errors import CheckpointError, ConfigError, EnvironmentFaultError, PipelineError
from pipeline.features.store import FeatureReader
from pipeline.registry import create
from pipeline.teachers.external import ExternalTeacher

PACKAGE = "package_made_for_the_test"
SOURCE = '''
import torch
from torch import nn


class Net(nn.Module):
    """Mean colour and a projection per patch of 8 pixels, two special tokens first, views see their mean."""

    def __init__(self, width, jointly=False):
        super().__init__()
        self.project = nn.Linear(3, width)
        self.special = nn.Parameter(torch.ones(2, width))
        self.block = nn.Sequential(nn.Linear(width, width))
        self.jointly = jointly

    def patches(self, images):
        cells = images.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).mean((-1, -3))
        return self.project(cells.movedim(-3, -1))

    def forward(self, images):
        if images.shape[-1] % 8:
            raise ValueError("sides must be multiples of 8")
        maps = self.patches(images)
        tokens = maps.flatten(-3, -2)
        tokens = torch.cat([self.special.expand(*tokens.shape[:-2], -1, -1), tokens], dim=-2)
        if self.jointly:
            tokens = tokens + tokens.mean(1, keepdim=True)
        return {"levels": [tokens, self.block(tokens)], "maps": maps.movedim(-1, -3), "last": maps, "text": "hello"}


def make(width=6, **more):
    return Net(width, **more)


def second_level(model, images):
    return model(images)["levels"][1][..., 2:, :]


def one_after_the_other(model, images):
    return model(images)["levels"][0].flatten(1, 2)


def predicting(model, images):
    maps = images.mean(-3)
    pose = torch.eye(4).repeat(images.shape[-4], 1, 1)
    pose[:, 0, 3] = 2.0 + torch.arange(images.shape[-4])
    tokens = model(images)["levels"][0][..., 2:, :]
    return {"tokens": tokens, "depth": 1 + maps, "confidence": maps, "pose": pose, **EXTRA}


EXTRA = {}


def hungry(model, images):
    model(images)
    raise torch.OutOfMemoryError("no room")


def not_a_module():
    return 3
'''
STATE = {"project.weight": (6, 3), "project.bias": (6,), "special": (2, 6), "block.0.weight": (6, 6), "block.0.bias": (6,)}
LICENCE = {"code": "made for the test", "weights": "none", "commercial": True}
BASE: dict[str, Any] = {
    "factory": f"{PACKAGE}:make",
    "views": "separately",
    "output": ["levels", 0],
    "lead_tokens": 2,
    "dim": 6,
    "patch_px": 8,
    "size": 64,
    "normalisation": "identity",
    "licence": LICENCE,
}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / f"{PACKAGE}.py").write_text(SOURCE)
    (folder / f"{PACKAGE}_broken.py").write_text("raise RuntimeError('no driver')")
    (folder / f"{PACKAGE}_needy.py").write_text("import a_dependency_that_is_not_there")
    monkeypatch.syspath_prepend(folder)
    yield
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


def external(**changes: Any) -> ExternalTeacher:
    return create("teachers", {"name": "mine", "kind": "external", "options": BASE | changes})


def encoded(**changes: Any) -> np.ndarray:
    teacher = external(**changes)
    teacher.load(None, "cpu")
    return teacher.encode(make_scene(views=3, size=(48, 64))).tokens


def state(seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in STATE.items()}


def expected(weights: dict[str, torch.Tensor], level: int = 0) -> np.ndarray:
    """The package's network in NumPy, on the images of the scene as they are."""
    images = make_scene(views=3, size=(48, 64)).rgb.astype(np.float32) / 255
    cells = images.reshape(3, 6, 8, 8, 8, 3).mean((2, 4))
    w = {name: value.numpy() for name, value in weights.items()}
    tokens = cells @ w["project.weight"].T + w["project.bias"]
    return tokens if level == 0 else tokens @ w["block.0.weight"].T + w["block.0.bias"]


@pytest.fixture
def weights_file(tmp_path: Path) -> str:
    save_file(state(), tmp_path / "net.safetensors")
    return str(tmp_path / "net.safetensors")


def test_tokens_are_the_models_and_row_major(weights_file: str) -> None:
    teacher = external(weights=weights_file)
    teacher.check_weights()
    teacher.load(None, "cpu")
    found = teacher.encode(make_scene(views=3, size=(48, 64)))
    assert found.grid == teacher.grid(48, 64)
    assert (found.grid.rows, found.grid.cols) == (6, 8)
    np.testing.assert_allclose(found.tokens, expected(state()), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"output": ["levels", -1]}, 1),
        ({"tap": "block", "output": []}, 1),
        ({"tap": f"{PACKAGE}:second_level", "output": [], "lead_tokens": 0}, 1),
        ({"output": ["maps"], "output_layout": "channels_first", "lead_tokens": 0}, 0),
        ({"output": ["last"], "output_layout": "channels_last", "lead_tokens": 0}, 0),
        ({"call": "patches", "output": [], "output_layout": "channels_last", "lead_tokens": 0}, 0),
        ({"images_argument": "images"}, 0),
        ({"views": "together"}, 0),
        ({"views": "together_flat"}, 0),
        ({"views_per_pass": 2}, 0),
        ({"tap": f"{PACKAGE}:one_after_the_other", "output": [], "views": "together"}, 0),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_way_of_reading_gives_the_same(weights_file: str, changes: dict[str, Any], level: int) -> None:
    np.testing.assert_allclose(encoded(weights=weights_file, **changes), expected(state(), level), atol=1e-5)


PREDICTING = {"tap": f"{PACKAGE}:predicting", "output": [], "lead_tokens": 0, "views": "together"}


def test_predictions_are_stored_beside_the_tokens(weights_file: str) -> None:
    teacher = external(weights=weights_file, **PREDICTING)
    teacher.load(None, "cpu")
    found = teacher.encode(make_scene(views=3, size=(48, 64)))
    np.testing.assert_allclose(found.tokens, expected(state()), atol=1e-5)
    pictures = make_scene(views=3, size=(48, 64)).rgb.astype(np.float32) / 255
    means = pictures.reshape(3, 6, 8, 8, 8, 3).mean((2, 4, 5))
    assert found.confidence is not None
    assert found.depth is not None
    assert found.pose is not None
    np.testing.assert_allclose(found.confidence, means, atol=1e-5)
    np.testing.assert_allclose(found.depth, 1 + means, atol=1e-5)
    np.testing.assert_array_equal(found.pose[0], np.eye(4))
    np.testing.assert_allclose(found.pose[:, 0, 3], [0, 1, 2])


@pytest.mark.parametrize(
    ("extra", "changes", "message"),
    [
        ("{'depht': 1}", {}, "entry 'depht'"),
        ("{'depth': -maps - 1}", {}, "depth has numbers out of range"),
        ("{'depth': maps[..., 0]}", {}, "height, width"),
        ("{'depth': [1, 2]}", {}, "depth is list"),
        ("{'confidence': maps * 100 + 2}", {}, "0 to 1"),
        ("{'pose': pose[:2]}", {}, "3, 4, 4"),
        ("{'pose': pose * 2}", {}, "world_from_camera"),
        ("{'pose': pose.diagonal(dim1=1, dim2=2)}", {}, "pose is a tensor"),
        ("{}", {"views": "separately"}, "encoded separately"),
    ],
)
def test_predictions_that_are_none_are_refused(tmp_path: Path, extra: str, changes: dict[str, Any], message: str) -> None:
    changed = SOURCE.replace("**EXTRA", f"**{extra}")
    assert changed != SOURCE
    (tmp_path / "site" / f"{PACKAGE}.py").write_text(changed)
    with pytest.raises(ConfigError, match=re.escape(message)):
        encoded(**PREDICTING | changes)


def test_dependence_is_as_said_and_assumed_for_views_together() -> None:
    together = external(views="together", arguments={"jointly": True})
    assert (together.order_dependent, together.set_dependent) == (True, True)
    said = external(views="together", order_dependent=False)
    assert (said.order_dependent, said.set_dependent) == (False, True)
    alone = external()
    assert (alone.order_dependent, alone.set_dependent) == (False, False)
    with pytest.raises(ConfigError, match="separately cannot depend"):
        external(set_dependent=True)


def test_views_together_are_one_call() -> None:
    joint = encoded(views="together", arguments={"jointly": True})
    assert not np.allclose(joint, encoded(views="together"))


def test_resize_rule_and_normalisation_change_the_input() -> None:
    assert external(resize="squash", size=32).grid(60, 80).count == 16
    assert external(resize="area", size=48 * 64).grid(480, 640).rows == 6
    assert external(resize="long_side", size=64).grid(640, 480).rows == 8
    assert external(resize="width", size=64).grid(640, 320).rows == 16
    assert external(multiple_px=16).grid(48, 64).rows == 6
    assert external(size=63, rounding="down").grid(48, 64).cols == 7
    plain, centred = encoded(), encoded(normalisation="half")
    assert not np.allclose(plain, centred)


def test_the_digest_covers_weights_and_code(tmp_path: Path, weights_file: str) -> None:
    first = external(weights=weights_file).load(None, "cpu")
    assert external(weights=weights_file).load(None, "cpu") == first
    save_file(state(2), tmp_path / "other.safetensors")
    assert external(weights=str(tmp_path / "other.safetensors")).load(None, "cpu") != first
    path = tmp_path / "site" / f"{PACKAGE}.py"
    path.write_text(SOURCE.replace("return 3", "return 4"))
    assert external(weights=weights_file).load(None, "cpu") != first


def test_random_weights_are_the_same_in_every_process() -> None:
    torch.manual_seed(5)
    first = encoded()
    torch.manual_seed(6)
    np.testing.assert_array_equal(encoded(), first)


def test_key_prefix_and_superset(tmp_path: Path) -> None:
    path = tmp_path / "all.pt"
    torch.save({"step": 3, "model": {f"net.{n}": v for n, v in state().items()} | {"head.weight": torch.ones(2)}}, path)
    keys = {"weights": str(path), "weights_key": "model", "weights_prefix": "net."}
    external(**keys).check_weights()
    np.testing.assert_allclose(encoded(**keys), expected(state()), atol=1e-5)
    torch.save(state() | {"head.weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"1 unexpected, first 'head\.weight'"):
        external(weights=str(path)).load(None, "cpu")
    external(weights=str(path), weights_match="superset").check_weights()
    np.testing.assert_allclose(encoded(weights=str(path), weights_match="superset"), expected(state()), atol=1e-5)


def test_partial_weights_are_taken_only_when_asked_for(tmp_path: Path) -> None:
    some = {name: value for name, value in state().items() if not name.startswith("block")}
    path = tmp_path / "some.safetensors"
    save_file(some, path)
    for act in ("check_weights", "load"):
        teacher = external(weights=str(path), weights_match="superset")
        with pytest.raises(CheckpointError, match=r"2 missing, first 'block\.0\.bias'"):
            teacher.check_weights() if act == "check_weights" else teacher.load(None, "cpu")
    np.testing.assert_allclose(encoded(weights=str(path), weights_match="partial"), expected(state()), atol=1e-5)
    save_file(some | {"special": torch.ones(3, 6)}, path)
    with pytest.raises(CheckpointError, match="1 misshapen, first 'special'"):
        external(weights=str(path), weights_match="partial").check_weights()


def test_weights_that_cannot_be_used_are_told(tmp_path: Path, weights_file: str) -> None:
    with pytest.raises(CheckpointError, match=r"do not exist[\s\S]*from my disk"):
        external(weights=str(tmp_path / "none.pt"), source="from my disk").check_weights()
    with pytest.raises(CheckpointError, match=r"starts with 'module\.'[\s\S]*project\."):
        external(weights=weights_file, weights_prefix="module.").check_weights()
    torch.save({"state_dict": state()}, tmp_path / "nested.pt")
    with pytest.raises(CheckpointError, match=r"no mapping 'model'[\s\S]*state_dict"):
        external(weights=str(tmp_path / "nested.pt"), weights_key="model").load(None, "cpu")
    with pytest.raises(CheckpointError, match="dict under 'state_dict', not a tensor"):
        external(weights=str(tmp_path / "nested.pt"), weights_match="superset").load(None, "cpu")
    torch.save({f"net.{name}": value for name, value in state().items()}, tmp_path / "prefixed.pt")
    with pytest.raises(CheckpointError, match=r"no name in common[\s\S]*weights_prefix"):
        external(weights=str(tmp_path / "prefixed.pt"), weights_match="partial").check_weights()
    Path(weights_file).write_bytes(Path(weights_file).read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="cannot be read"):
        external(weights=weights_file).check_weights()


FAULTS: list[tuple[dict[str, Any], type[PipelineError], str]] = [
    ({"factory": "no_such_package_here:Net"}, EnvironmentFaultError, r"no module 'no_such_package_here'[\s\S]*mend"),
    ({"factory": f"{PACKAGE}_needy:Net"}, EnvironmentFaultError, "needs 'a_dependency_that_is_not_there'"),
    ({"factory": f"{PACKAGE}_broken:Net"}, EnvironmentFaultError, r"RuntimeError: no driver[\s\S]*_broken.py:1"),
    ({"factory": f"{PACKAGE}:mak"}, ConfigError, "no 'mak', did you mean 'make'"),
    ({"factory": f"{PACKAGE}:nn.__name__"}, ConfigError, "is a str, not a class or function"),
    ({"factory": f"{PACKAGE}:not_a_module"}, ConfigError, r"gives a int[\s\S]*torch.nn.Module"),
    ({"arguments": {"widht": 6}}, ConfigError, r"TypeError[\s\S]*widht[\s\S]*teachers.mine.arguments"),
    ({"tap": "blok"}, ConfigError, r"no module 'blok', did you mean 'block'[\s\S]*project"),
    ({"call": "pathces"}, ConfigError, "no 'pathces', did you mean 'patches'"),
    ({"call": "patches", "tap": "block"}, ConfigError, "does not run the module 'block'"),
    ({"tap": f"{PACKAGE}:third_level"}, ConfigError, "has no 'third_level'"),
    ({"output": ["levels", 2]}, ConfigError, r"output\['levels'\] has no 2[\s\S]*list of 2"),
    ({"output": ["layers"]}, ConfigError, r"has no 'layers'[\s\S]*'levels', 'maps'"),
    ({"output": ["text"]}, ConfigError, "gives a str, not a tensor"),
    ({"lead_tokens": 1}, ConfigError, r"50 tokens per view, not 1 \+ 6 x 8[\s\S]*lead_tokens: 2"),
    ({"lead_tokens": 0, "patch_px": 4}, ConfigError, r"not 0 \+ 12 x 16[\s\S]*mend patch_px"),
    ({"dim": 7}, ConfigError, r"6 channels, not 7[\s\S]*dim: 6"),
    ({"output": ["last"], "output_layout": "channels_last", "lead_tokens": 0, "patch_px": 4}, ConfigError, "not 12 x 16"),
    ({"output": ["special"], "call": "block"}, ConfigError, "RuntimeError"),
    ({"images_argument": "pixels"}, ConfigError, r"TypeError[\s\S]*views, images_argument"),
    ({"size": 70, "patch_px": 10}, ConfigError, r"sides must be multiples of 8[\s\S]*package_made_for_the_test.py:\d+"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "message"), FAULTS, ids=[str(fault[0])[:50] for fault in FAULTS])
def test_every_fault_is_one_message(changes: dict[str, Any], error: type[PipelineError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        encoded(**changes)
    assert type(caught.value) is error
    assert caught.value.where


def test_want_of_memory_is_left_to_the_extraction_engine() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        encoded(tap=f"{PACKAGE}:hungry")
    assert external().memory_advice() == "teachers.mine: precision: bfloat16, views_per_pass: 8"
    assert external(views="together").memory_advice() == "teachers.mine: precision: bfloat16"
    assert external(views_per_pass=1, precision="bfloat16").memory_advice() == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factory": "package.module"}, "not of the form package.module:name"),
        ({"tap": "a b:c"}, "not of the form"),
        ({"multiple_px": 12}, "not a multiple of patch_px"),
        ({"output_layout": "channels_last"}, "no special tokens"),
        ({"weights_prefix": "model."}, "belong to a weights file"),
        ({"order_dependent": True, "set_dependent": False, "views": "together"}, "set_dependent cannot be false"),
        ({"licence": {"code": "MIT"}}, "licence.weights"),
        ({"normalization": "half"}, "did you mean 'normalisation'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_options_that_contradict_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        external(**changes)


def test_licence_and_weight_files_are_the_users(weights_file: str) -> None:
    teacher = external(weights=weights_file, source="the group's disk")
    assert teacher.licences().code == "made for the test"
    (file,) = teacher.weight_files()
    assert (str(file.path), file.source) == (weights_file, "the group's disk")
    assert external().weight_files() == ()
    without = {key: value for key, value in BASE.items() if key != "licence"}
    with pytest.raises(ConfigError, match="licence: Field required"):
        create("teachers", {"name": "mine", "kind": "external", "options": without})


def test_extract_stores_its_features(tmp_path: Path, weights_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    index = write_dataset(tmp_path / "scenes", [make_scene(f"box{i}", views=2, size=(24, 32)) for i in range(2)])
    member = {"name": "mine", "kind": "external", "options": BASE | {"weights": weights_file, "size": 32}}

    def extract(out: Path, teacher: dict[str, Any]) -> int:
        spec = {"dataset": "boxes", "teacher": teacher, "shard": 0, "shards": 1, "splits": ["train"], "code": "x"}
        spec |= {"store": {"dtype": "float32"}}
        return main(["extract", "--spec", json.dumps(spec), "--scenes", str(index.path), "--out", str(out)])

    out = tmp_path / "features" / "manifest.json"
    assert extract(out, member) == 0
    scene = index.load("box1")
    teacher = create("teachers", member)
    teacher.load(None, "cpu")
    stored = FeatureReader([out]).read("box1", scene.record.frame_ids).tokens
    np.testing.assert_array_equal(stored, teacher.encode(scene).tokens)
    wrong = member | {"options": member["options"] | {"lead_tokens": 1}}
    assert extract(tmp_path / "wrong" / "manifest.json", wrong) == 2
    assert "lead_tokens: 2 if these 2 come first" in capsys.readouterr().err


def test_config_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, path = Path(__file__).parents[3] / "config.yaml", tmp_path / "more.yaml"

    def check(options: dict[str, Any]) -> int:
        path.write_text(yaml.safe_dump({"teachers": {"mine": {"kind": "external"} | options}, "study": {"teachers": ["mine"]}}))
        return main(["check", str(base), str(path)])

    assert check(BASE) == 0
    assert "none, mine" in capsys.readouterr().out
    assert check(BASE | {"lead_token": 2}) == 2
    assert "did you mean 'lead_tokens'" in capsys.readouterr().err


def test_the_documented_example_is_a_valid_teacher() -> None:
    page = (Path(__file__).parents[3] / "docs" / "external_teacher.md").read_text()
    example = yaml.safe_load(re.search(r"```yaml\n(teachers:.*?)```", page, re.S).group(1))  # type: ignore[union-attr]
    options = example["teachers"]["vggt_omega"]
    assert options.pop("kind") == "external"
    teacher = create("teachers", {"name": "vggt_omega", "kind": "external", "options": options})
    grid = teacher.grid(968, 1296)
    assert (grid.rows, grid.cols, teacher.dim) == (28, 37, 2048)
    assert teacher.set_dependent
    with pytest.raises(EnvironmentFaultError, match="no module 'vggt_omega'"):
        teacher.check_weights()


def test_the_documented_figures_of_models_are_what_the_options_give() -> None:
    page = (Path(__file__).parents[3] / "docs" / "external_teacher.md").read_text()
    table = page.split("## Figures of well-known models")[1]
    rows = {cells[1]: cells for line in table.splitlines()[6:] if len(cells := [c.strip() for c in line.split("|")]) > 2}
    assert {"MapAnything", "Depth Anything 3", "VGGT-Omega", "CUT3R"} <= set(rows)
    for name, (_, _, rule, grid, normalisation, *_) in rows.items():
        patch, resize, size = (value.strip(" `") for value in rule.split(","))
        options = {"patch_px": int(patch), "resize": resize, "size": int(size), "normalisation": normalisation.strip("`")}
        found = external(**options).grid(968, 1296)
        assert f"{found.rows} x {found.cols}" == grid, name
