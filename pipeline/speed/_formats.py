"""The same scene's bfloat16 numbers in other formats, through their own libraries and with their own defaults.

One file or folder per scene, of ready-made numbers, neither flushed nor verified by us; every read ends with all numbers in
memory of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import webdataset
import zarr
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file


class Format(Protocol):
    """One way to store a scene."""

    name: str

    def write(self) -> None: ...

    def read(self) -> object: ...

    def bytes(self) -> float:
        """Return the bytes on disk."""


class PlainZarr:
    """An array of zarr-python, a chunk per view, everything else (codec, writer, reader) as it comes."""

    name = "plain zarr"

    def __init__(self, folder: Path, bits: NDArray[np.uint16]):
        self._path, self._bits = folder / "plain.zarr", bits

    def write(self) -> None:
        shape, chunks = self._bits.shape, (1, *self._bits.shape[1:])
        array = zarr.create_array(self._path, shape=shape, chunks=chunks, dtype="uint16", overwrite=True)
        array[...] = self._bits

    def read(self) -> object:
        return np.asarray(zarr.open_array(self._path, mode="r")[...])

    def bytes(self) -> float:
        return float(sum(path.stat().st_size for path in self._path.glob("**/*") if path.is_file()))


class Safetensors:
    """A bfloat16 tensor in one file, which is mapped and copied."""

    name = "safetensors"

    def __init__(self, folder: Path, bits: NDArray[np.uint16]):
        self._path, self._tensor = folder / "scene.safetensors", torch.from_numpy(bits).view(torch.bfloat16)

    def write(self) -> None:
        save_file({"tokens": self._tensor}, self._path)

    def read(self) -> object:
        return load_file(self._path)["tokens"].clone()

    def bytes(self) -> float:
        return float(self._path.stat().st_size)


class WebDatasetShard:
    """A tar file with the scene as one sample; a `.npy` member, which the library decodes."""

    name = "WebDataset"

    def __init__(self, folder: Path, bits: NDArray[np.uint16]):
        self._path, self._bits = folder / "scenes.tar", bits

    def write(self) -> None:
        with webdataset.TarWriter(str(self._path)) as sink:
            sink.write({"__key__": "scene", "tokens.npy": self._bits})

    def read(self) -> object:
        (sample,) = webdataset.WebDataset(str(self._path), shardshuffle=False).decode()
        return sample["tokens.npy"]

    def bytes(self) -> float:
        return float(self._path.stat().st_size)


def all_formats(folder: Path, bits: NDArray[np.uint16]) -> list[Format]:
    """Return every other format, holding the scene with these bit patterns (V,G,K,D)."""
    return [PlainZarr(folder, bits), Safetensors(folder, bits), WebDatasetShard(folder, bits)]
