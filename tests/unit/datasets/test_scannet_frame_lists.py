"""Frame lists: what is read, what is refused, and the command of docs/scannet.md that converts a pickle."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.datasets.scannet.frame_lists import read_frame_lists

DOC = Path(__file__).parents[3] / "docs" / "scannet.md"


def written(folder: Path, content: Any, name: str = "frames.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_ids_of_wanted_scans_in_order(tmp_path: Path) -> None:
    content = {"scannet/a": ["00010", "00000"], "scannet/b": ["00000"], "matterport3d/x/y": ["0"], "a": ["1"]}
    paths = [written(tmp_path, content), written(tmp_path, {"scannet/c": ["00020"]}, "train.json")]
    assert read_frame_lists(paths, frozenset({"a", "c"})) == {"a": ("00010", "00000"), "c": ("00020",)}
    with pytest.raises(DataError, match="twice"):
        read_frame_lists([paths[0], paths[0]], frozenset({"a"}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "JSON object"),
        ({"scannet/a": 3}, "not a list"),
        ({"scannet/a": [3]}, "not a valid id"),
        ({"scannet/a": [".."]}, "not a valid id"),
        ({"scannet/a": ["0", "0"]}, "twice"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_frame_lists([written(tmp_path, content)], frozenset({"a"}))


def test_a_pickle_is_refused_and_the_documented_command_converts_it(tmp_path: Path) -> None:
    images = [{"img_path": f"scannet/posed_images/a/{name}.jpg", "cam2global": np.eye(4)} for name in ("00010", "00000")]
    path = tmp_path / "embodiedscan_infos_train.pkl"
    path.write_bytes(pickle.dumps({"metainfo": {}, "data_list": [{"sample_idx": "scannet/a", "images": images}]}))
    with pytest.raises(DataError, match=r"is a pickle, which is not read(.|\n)*docs/scannet\.md"):
        read_frame_lists([path], frozenset({"a"}))
    (command,) = re.findall(r"```sh\n *(python -c .*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert read_frame_lists([tmp_path / "frames_train.json"], frozenset({"a"})) == {"a": ("00010", "00000")}
