import json

import pytest

from pipeline.core.errors import DataError
from pipeline.core.provenance import digest, read_manifest, run_record, seed_for, write_atomic, write_manifest


def test_manifests_are_atomic_and_deterministic(tmp_path):
    path = tmp_path / "deep" / "manifest.json"
    write_manifest(path, {"b": 1, "a": [1.5]})
    first = path.read_bytes()
    write_manifest(path, {"a": [1.5], "b": 1})
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["manifest.json"]
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(path, {"a": float("nan")})
    assert path.read_bytes() == first


def test_a_missing_or_truncated_manifest_names_the_command(tmp_path):
    path = tmp_path / "manifest.json"
    with pytest.raises(DataError, match="snakemake thing"):
        read_manifest(path, made_by="snakemake thing")
    write_atomic(path, '{"a": 1')
    with pytest.raises(DataError, match="not valid JSON"):
        read_manifest(path, made_by="snakemake thing")


def test_digest_and_seed_are_stable_across_processes():
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert seed_for("rooms", 0, "train", 3) == 5989909808316318522
    assert seed_for("rooms", 0, "train", 3) != seed_for("rooms", 0, "train", 4)


def test_run_record_holds_time_memory_and_versions(tmp_path):
    with run_record(tmp_path / "run.json", scenes=3) as record:
        record["extra"] = 1
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["scenes"] == 3
    assert content["extra"] == 1
    assert content["peak_rss_mb"] > 1
    assert content["versions"]["torch"].startswith("2.")
