"""The command: text at 100 columns, JSON, exit codes, and no heavy import unless weights are checked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from doctor_studies import built_in, lab, write_config

from pipeline.__main__ import main
from pipeline.doctor.examine import examine
from pipeline.doctor.text import render
from pipeline.study.config import StudyConfig, read_config

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("project")


def test_the_built_in_study_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(ROOT / "config.yaml")]) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 100
    assert len(text.splitlines()) <= 40
    for word in ("TEACHERS", "BACKBONES", "RELEASED WEIGHTS", "DATASETS", "COST", "ENVIRONMENT", "READY"):
        assert word in text
    for name in ("none", "geometry", "vggt_rooms", "shuffled", "qwen2_5_vl_tiny", "rooms_pretrain"):
        assert name in text
    assert "nothing to download" in text
    assert re.search(r"together +no GPU hours, \d+(\.\d+)? MB of disk to come\n", text)
    assert "no GPU is needed" in text
    assert "random" not in text.replace("randomly", ""), "the study does not select the teacher `random`"


def test_the_study_on_scannet_is_one_screen_and_costed_before_anything_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of it is downloaded here: what, where to, where from, licence, size and hours are known all the same."""
    files = [str(ROOT / "config.yaml"), str(ROOT / "workflow/studies/scannet.yaml")]
    assert main(["doctor", *files]) == 2
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 80
    assert max(len(line) for line in text.splitlines()) <= 100
    flat = " ".join(text.split())
    for said in ("to answer scanrefer 9,508", "to train on: 223,128", "ScanQA: CC BY-NC-SA 3.0", "SQA3D: CC BY 4.0"):
        assert said in flat
    assert "ScanRefer_filtered_{train, val}.json] from daveredrum.github.io/ScanRefer (request form)" in flat
    assert "weights/Qwen2.5-VL-3B-Instruct, 7.51 GB, from Hugging Face, Qwen/Qwen2.5-VL-3B-Instruct" in flat
    assert re.search(r"together about [\d,]+ GPU hours", flat)
    assert "not known" not in flat
    assert main(["doctor", *files, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["cost"]["unknown"] == []
    answers = 9_508 + 11_120 + 2_068 + 4_675 + 3_519 + 141
    assert report["cost"]["predictions"] == 12 * answers
    screen = render(examine(read_config(list(map(Path, files))), list(map(Path, files)), 125.0), 160)
    assert len(screen.splitlines()) <= 56
    assert max(len(line) for line in screen.splitlines()) <= 160


def test_the_start_command_is_that_of_the_same_study(capsys: pytest.CaptureFixture[str]) -> None:
    """Snakemake lays every file over config.yaml, so only a study that starts with it has a command."""
    write_config(built_in(), Path("config.yaml"))
    Path("more.yaml").write_text("study: {seeds: [0]}", encoding="utf-8")
    ends = {}
    for files in (["config.yaml"], ["config.yaml", "more.yaml"], ["./config.yaml"]):
        assert main(["doctor", *files]) == 0
        ends[files[-1]] = capsys.readouterr().out.splitlines()[-1].strip()
    assert ends == {
        "config.yaml": "everything the study needs is there: snakemake --cores all",
        "more.yaml": "everything the study needs is there: snakemake --cores all --configfile config.yaml more.yaml",
        "./config.yaml": "everything the study needs is there: snakemake --cores all",
    }


def test_a_laboratory_study_lists_everything_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    write_config(lab())
    assert main(["doctor", "study.yaml"]) == 2
    shown = capsys.readouterr()
    text = shown.out
    assert max(len(line) for line in text.splitlines()) <= 100
    for word in ("NOT FOR COMMERCIAL USE", "CC BY-NC 4.0", "28x37 tokens of 2048 numbers", "Qwen Research License"):
        assert word in " ".join(text.split())
    verdict = " ".join(text[text.index("MISSING (") :].split())
    assert "weights/vggt/model.pt, 5.03 GB, from" in verdict
    assert "weights/Qwen2.5-VL-3B-Instruct" in verdict
    assert "Hugging Face, Qwen/Qwen2.5-VL-3B-Instruct" in verdict
    assert "missing, listed above" in shown.err
    assert "Traceback" not in shown.err


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    write_config(lab())
    assert main(["doctor", "study.yaml", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is False
    assert {row["name"]: row["commercial"] for row in report["teachers"]} == {"none": True, "vggt_1b": False}
    vggt = report["teachers"][1]
    assert (vggt["grids"], vggt["dim"]) == ({"480x640": [28, 37]}, 2048)
    assert vggt["order_dependent"]
    assert vggt["set_dependent"]
    weights = {row["owner"]: row for row in report["weights"]}
    assert weights["backbones.qwen_3b"]["bytes"] == 7_509_245_952
    assert {row["state"] for row in report["weights"]} == {"not there"}
    assert {need["area"] for need in report["missing"]} >= {"weights"}
    cache = report["cost"]["features"][0]
    assert cache["bytes"] == 562 * 32 * 28 * 37 * 2048 * 2
    assert cache["views"] == 562 * 32
    assert 0 < cache["gpu_hours"] < 1
    assert report["cost"]["predictions"] is None
    assert 50 < report["cost"]["gpu_hours"] < 1000


def test_json_of_a_prepared_study(prepared: Callable[[StudyConfig], Path], capsys: pytest.CaptureFixture[str]) -> None:
    prepared(write_config(built_in()))
    assert main(["doctor", "study.yaml", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is True
    (rooms,) = report["datasets"]
    assert rooms["state"] == "prepared"
    assert rooms["samples"]["correspondence"] == 3
    assert report["cost"]["runs"] == 2 * 2
    assert report["cost"]["predictions"] == sum(rooms["samples"].values()) * 4


def test_a_faulty_configuration_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.yaml").write_text("datsets: {}", encoding="utf-8")
    assert main(["doctor", "study.yaml"]) == 2
    assert "did you mean 'datasets'" in capsys.readouterr().err
    for tflops in ("0", "nan", "inf", "-1"):
        assert main(["doctor", str(ROOT / "config.yaml"), "--tflops", tflops]) == 2
        assert "a number above 0" in capsys.readouterr().err


def test_nothing_heavy_is_imported_when_no_weights_are_checked(tmp_path: Path) -> None:
    code = f"""
import sys
from pipeline.__main__ import main
assert main(["doctor", {str(ROOT / "config.yaml")!r}, "--json"]) == 0
print([m for m in ("torch", "transformers", "zarr", "open3d", "matplotlib") if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "[]"
