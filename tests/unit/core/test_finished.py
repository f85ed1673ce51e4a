"""What may be kept of finished work, what is forced, and whose it must be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.errors import CheckpointError, DataError
from pipeline.core.finished import FORCED, begin, check_files, digests_of, finish, forced, kept, same_identity
from pipeline.core.provenance import read_manifest

SPEC, INPUTS = {"recipe": {"steps": 2}}, {"scenes": "abc", "questions": {"scanqa": "d"}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Manifest of a finished result with one file."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "run.json").write_text("{}")
    finish(tmp_path / "manifest.json", SPEC, INPUTS, {"files": digests_of(tmp_path), "steps": 2})
    return tmp_path / "manifest.json"


def test_a_result_of_the_same_spec_and_inputs_comes_back(out: Path) -> None:
    whole = out.read_bytes()
    out.unlink()  # as Snakemake does before it starts the job
    found = kept(out, SPEC, INPUTS, force=False)
    assert found is not None
    assert found["steps"] == 2
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("spec", "inputs", "force"),
    [({"recipe": {"steps": 3}}, INPUTS, False), (SPEC, INPUTS | {"scenes": "abd"}, False), (SPEC, INPUTS, True)],
)
def test_other_inputs_and_force_make_it_again_and_leave_the_old_one_until_then(out: Path, spec, inputs, force) -> None:
    assert kept(out, spec, inputs, force=force) is None
    assert kept(out, SPEC, INPUTS, force=False), "an interrupted rerun leaves the old result accepted"
    begin(out)
    assert kept(out, SPEC, INPUTS, force=False) is None


def test_a_damaged_result_is_not_kept_and_not_read(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.with_name("model.safetensors").write_bytes(b"weightz")
    assert kept(out, SPEC, INPUTS, force=False) is None
    assert "warning: " in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        check_files(out, read_manifest(out, made_by=""))
    out.with_name("model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        check_files(out, read_manifest(out, made_by=""))


def test_somebody_elses_result_is_named(out: Path) -> None:
    made = {"run": {"teacher": "vggt"}, "dataset": "rooms"}
    same_identity(made, {"dataset": "rooms"}, out, "the run")
    with pytest.raises(DataError, match=r'is not the run: its run is \{"teacher": "vggt"\}') as error:
        same_identity(made, {"dataset": "rooms", "run": {"teacher": "none"}}, out, "the run")
    assert '{"teacher": "none"}' in str(error.value.allowed)


def test_what_the_user_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path("results/runs/a/manifest.json")
    assert not forced("train", [out])
    for names, yes in (
        (["train"], True),
        ([str(out)], True),
        ([f"./{out}"], True),
        (["*"], True),
        (["prepare", "results/x"], False),
    ):
        monkeypatch.setenv(FORCED, json.dumps(names))
        assert forced("train", [out]) is yes
