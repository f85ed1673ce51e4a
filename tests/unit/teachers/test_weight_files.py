"""Files that are not weights, or not the kind of file that their name says: one message that says what they are."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from pipeline.core.errors import CheckpointError
from pipeline.core.weights import check_shapes, read_shapes, read_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 5026873376\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>"


class Settings:
    """Stands for what trainers keep beside the weights."""


def torch_file(content: object, **how: bool) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path, **how)


def cut(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-300])


def other_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing here")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty"), (POINTER, "the pointer that Git LFS leaves"), (PAGE, "it is a web page")],
    ids=["empty", "pointer", "page"],
)
def test_downloads_that_went_wrong(content: bytes, message: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    for read in (read_weights, read_shapes):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path, fix="get it again")
        assert str(path) in str(caught.value)
        alone = f"git -C {tmp_path} lfs pull, or download {path.name} alone"
        assert caught.value.fix == (alone if content == POINTER else "get it again")


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.pt", lambda p: p.write_text("a b c " * 99), r"no file of torch.save \(it begins with b'a b c"),
        ("a.pt", lambda p: p.write_bytes(save(STATE)), "a safetensors file; let its name end in .safetensors"),
        ("a.safetensors", torch_file(STATE), "a file of torch.save; let its name end in .pt"),
        ("a.safetensors", torch_file(STATE, _use_new_zipfile_serialization=False), "a file of torch.save"),
        ("a.pt", torch_file({"model": STATE, "args": Settings()}), r"beside tensors it holds [\w.]*Settings"),
        ("a.pth", cut, "failed finding central directory.; is it whole. It has"),
        ("a.pth", other_archive, "is it whole"),
        ("a.pt", lambda p: p.write_bytes(pickle.dumps({"a": b"x" * 500}, protocol=4)), "cannot be read"),
        ("a.safetensors", lambda p: p.write_bytes(save(STATE)[:-4]), r"it is cut short: \d+ of \d+ bytes are there"),
        ("a.pt", torch_file([1, 2]), "hold list, not named tensors"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_of_another_kind(name: str, write: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    for read in (read_weights, read_shapes):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(tmp_path / name, fix="get it again")
        first, *rest = str(caught.value).splitlines()
        assert "In PyTorch 2.6" not in first, "torch's advice to load anything is not passed on"
        assert any("get it again" in line for line in rest)


@pytest.mark.parametrize("key", [0, None, (1, 2)], ids=["int", "none", "tuple"])
def test_entries_have_names(key: object, tmp_path: Path) -> None:
    """A key that is no text ended in the comparison of names, with a traceback."""
    torch.save(STATE | {key: torch.zeros(1)}, tmp_path / "a.pt")
    for read in (read_weights, read_shapes):
        with pytest.raises(CheckpointError, match="weights hold an entry under") as caught:
            read(tmp_path / "a.pt", fix="get it again")
        assert "save the network's state dict alone" in str(caught.value.fix)


def test_the_first_difference_of_names_and_shapes_is_said() -> None:
    network = torch.nn.Linear(3, 2)
    found = {"weight": (2, 4), "scale": (5,)}
    with pytest.raises(CheckpointError) as caught:
        check_shapes(network, found, where="a.pt", fix="name another file")
    assert caught.value.what == (
        "weights do not fit the network: 1 missing, first 'bias' [2]; 1 unexpected, first 'scale' [5]; "
        "1 misshapen, first 'weight': [2, 4] in the file, [2, 3] in the network"
    )
    assert caught.value.fix == "the file is whole but of another network, so not the same one again: name another file"
    with pytest.raises(CheckpointError, match=r"all names begin with 'module\.' in the file"):
        check_shapes(network, {"module.weight": (2, 3), "module.bias": (2,)}, where="a.pt", fix="")
    check_shapes(network, {"weight": (2, 3), "bias": (2,)}, where="a.pt", fix="")


def test_want_of_memory_is_not_taken_for_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    torch.save(STATE, tmp_path / "a.pt")
    monkeypatch.setattr("pipeline.core.weights.torch.load", full)
    with pytest.raises(MemoryError, match="9 GiB"):
        read_weights(tmp_path / "a.pt", fix="")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    for name in ("model.pt", "model.safetensors", "readme.md"):
        (tmp_path / name).touch()
    for read in (read_weights, read_shapes):
        with pytest.raises(CheckpointError, match=r"are a folder\n.*a file in it: model\.pt, model\.safetensors\n"):
            read(tmp_path, fix="name the file")


@pytest.mark.parametrize("name", ["new.pt", "old.pth", "named.safetensors"])
def test_all_formats_give_the_same(name: str, tmp_path: Path) -> None:
    """Also the format that torch wrote before 1.6, in which some released weights still are."""
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=name == "new.pt")
    assert read_shapes(path, fix="") == {"a.weight": (2, 3)}
    torch.testing.assert_close(read_weights(path, fix=""), STATE)
