"""Pickled frame lists: what they may hold is read, what would run code is refused and has not run."""

from __future__ import annotations

import os
import pickle
import pickletools
import subprocess
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.scannet.pickled import read_frame_lists, restricted_load

SAFE: list[Any] = [
    {"a": [1, 2.5, None, True, "text", b"bytes", (3, 4), {5, 6}, frozenset({7}), 1 + 2j, bytearray(b"x"), 2**70]},
    OrderedDict(a=1),
    np.arange(12, dtype=np.float64).reshape(3, 4),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.arange(5, dtype=">i4"),
    np.array([True, False]),
    np.zeros((0, 7), dtype=np.uint8),
    [np.float32(1.5), np.int64(-3), np.bool_(True)],
    {"deep": [{"matrix": np.eye(4)}, (np.ones(2),)]},
]


class RunsOnLoad:
    """Its pickle calls a function with arguments, as a hostile file would."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("number", range(len(SAFE)))
def test_containers_numbers_text_and_arrays_are_read(number: int, protocol: int) -> None:
    np.testing.assert_equal(restricted_load(pickle.dumps(SAFE[number], protocol=protocol), "file"), SAFE[number])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_runs_code_is_refused_and_has_not_run(tmp_path: Path, protocol: int) -> None:
    proof = tmp_path / "ran"
    hostile = [
        RunsOnLoad(os.system, f"touch {proof}"),
        RunsOnLoad(subprocess.call, ["touch", str(proof)]),
        RunsOnLoad(eval, f"open({str(proof)!r}, 'w')"),
        RunsOnLoad(exec, f"open({str(proof)!r}, 'w')"),
        RunsOnLoad(open, str(proof), "w"),
        RunsOnLoad(getattr, "x", "upper"),
        RunsOnLoad(__import__, "os"),
        RunsOnLoad(np.load, str(proof)),
        deque([1]),
        Path("x"),
        np.array,
        print,
        Exception("x"),
    ]
    for thing in hostile:
        with pytest.raises(DataError, match="refused") as error:
            restricted_load(pickle.dumps({"data_list": [thing]}, protocol=protocol), "some.pkl")
        assert "some.pkl" in str(error.value)
    assert not proof.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\nstr.join\n.",  # a dotted name
        b"cnumpy\nndarray\n(K\x05tR.",  # a stand-in that is called
        b"cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.",  # a stand-in that is given attributes
        b"cnumpy\nndarray\nN}X\x05\x00\x00\x00_nameX\x05\x00\x00\x00arrays\x86b.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",  # another codec
        b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",  # two gigabytes of zeros
        b"Pidentifier\n.",
        b"\x82\x01.",  # an extension code
        b"",
        b"garbage",
        b"]",
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR.",
    ],
)
def test_hand_made_programs_end_in_a_message(program: bytes) -> None:
    with pytest.raises(DataError, match=r"some\.pkl"):
        restricted_load(program, "some.pkl")


@pytest.mark.parametrize("array", [np.array([{}], dtype=object), np.array(["text"]), np.array([(1, 2.0)], dtype="i4,f8")])
def test_arrays_of_other_things_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        restricted_load(pickle.dumps(array), "some.pkl")


def test_every_truncation_ends_in_a_message() -> None:
    whole = pickle.dumps({"a": [np.eye(2), "text", {1: (2, 3)}]}, protocol=4)
    assert len(list(pickletools.genops(whole))) > 20
    for length in range(len(whole)):
        with pytest.raises(DataError):
            restricted_load(whole[:length], "some.pkl")


def test_lists_that_hold_each_other_many_times_end() -> None:
    """Forty levels of two: a trillion lists when every one is copied."""
    content: list[Any] = []
    for _ in range(40):
        content = [content, content]
    found = restricted_load(pickle.dumps(content), "some.pkl")
    assert found[0] is found[1]


def listing(*entries: tuple[str, list[str]]) -> dict[str, Any]:
    """Content as EmbodiedScan writes it."""
    return {
        "metainfo": {"categories": {"chair": 1}, "DATASET": "EmbodiedScan"},
        "data_list": [
            {
                "sample_idx": scan,
                "axis_align_matrix": np.eye(4),
                "depth_cam2img": np.eye(4),
                "images": [{"img_path": f"scannet/posed_images/{scan}/{f}.jpg", "cam2global": np.eye(4)} for f in frames],
            }
            for scan, frames in entries
        ],
    }


def written(folder: Path, content: Any, name: str = "embodiedscan_infos_val.pkl") -> Path:
    path = folder / name
    path.write_bytes(pickle.dumps(content))
    return path


def test_frame_lists_give_the_ids_of_wanted_scans_in_order(tmp_path: Path) -> None:
    entries = [("scannet/a", ["00010", "00000"]), ("scannet/b", ["00000"]), ("matterport3d/x/y", ["0"]), ("3rscan/z", ["1"])]
    paths = [written(tmp_path, listing(*entries)), written(tmp_path, listing(("scannet/c", ["00020"])), "train.pkl")]
    assert read_frame_lists(paths, frozenset({"a", "c"})) == {"a": ("00010", "00000"), "c": ("00020",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no data_list"),
        ({"data_list": {}}, "no data_list"),
        ({"data_list": [{"images": []}]}, "malformed"),
        ({"data_list": [{"sample_idx": 3, "images": []}]}, "malformed"),
        ({"data_list": [{"sample_idx": "scannet/a", "images": [{}]}]}, "malformed"),
        ({"data_list": [{"sample_idx": "scannet/a", "images": np.eye(2)}]}, "malformed"),
        ({"data_list": [np.eye(2)]}, "malformed"),
        (listing(("scannet/../../etc", ["0"])), "not a valid id"),
        (listing(("scannet/a", [".."])), "not a valid id"),
        (listing(("scannet/a", ["0"]), ("scannet/a", ["0"])), "twice"),
        (listing(("scannet/a", ["0", "0"])), "twice"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_frame_lists([written(tmp_path, content)], frozenset({"a"}))
